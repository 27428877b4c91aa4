"""Is a set of heads the circuit? Faithfulness, completeness and minimality, by mean ablation of the others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from pellucid.core.results import Evidence, Table
from pellucid.engine.capture import capture
from pellucid.engine.cone import score_edits
from pellucid.engine.targets import resolve
from pellucid.models.edits import Edit
from pellucid.models.subject import Subject
from pellucid.studies._means import Part, named
from pellucid.studies._trials import Trial

Set = frozenset[Part]


def scores_with_only(subject: Subject, trials: Sequence[Trial], kept: Sequence[Set]) -> np.ndarray:
    """Return the mean target [sets] when all heads but those kept give their mean over the corrupted prompts.

    Means are taken per template and position, as in the paper; feed-forward layers are left as they are.
    """
    heads = subject.need_layout().stacks[""].heads.query
    names = [f"blocks.{layer}.attn.z" for layer in range(subject.layers)]
    totals = list[np.ndarray]()
    for form in sorted({trial.form for trial in trials}):
        group = [trial for trial in trials if trial.form == form]
        found = [capture(subject, trial.corrupt, names) for trial in group]
        means = {name: torch.stack([one[name].float() for one in found]).mean(0) for name in names}
        for trial in group:
            tokens = subject.encode(trial.clean)
            sets = [_without(means, names, heads, one) for one in kept]
            totals.append(score_edits(subject, tokens, resolve(subject, tokens, **trial.answer), sets).sum(1))
    mean: np.ndarray = np.mean(totals, axis=0)
    return mean


def _without(means: Mapping[str, torch.Tensor], names: list[str], heads: int, kept: Set) -> tuple[Edit, ...]:
    edits: list[Edit] = []
    for layer, name in enumerate(names):
        out = [head for head in range(heads) if (layer, head) not in kept]
        if out:
            places: dict[str, Any] = {"position": list(range(len(means[name]))), "head": out}
            edits.append(Edit(name, "set", means[name][:, out], places))
    return tuple(edits)


def judged(
    subject: Subject, trials: Sequence[Trial], roles: Mapping[str, Sequence[Part]], unit: str
) -> tuple[Table, Evidence]:
    """Judge a circuit of heads by role.

    Faithfulness F(C) / F(M): the share of the target that the circuit alone gives. Completeness: for the heads K of one
    role, F(C without K) against F(M without K), which should be equal. Minimality of a head v: what F loses without v,
    where the rest of its role stays or is gone, whichever shows more, as a share of F(M) (Wang et al. 2022).
    """
    every = frozenset(
        (layer, head) for layer in range(subject.layers) for head in range(subject.need_layout().stacks[""].heads.query)
    )
    groups = {role: frozenset(parts) for role, parts in roles.items() if parts}
    circuit = frozenset[Part]().union(*groups.values())
    sets: list[Set] = [every, circuit, frozenset()]
    for parts in groups.values():
        sets += [circuit - parts, every - parts]
    members = [(role, part) for role, parts in groups.items() for part in sorted(parts)]
    for role, part in members:
        rest = groups[role] - {part}
        sets += [circuit - {part}, circuit - rest, circuit - rest - {part}]
    found = scores_with_only(subject, trials, list(dict.fromkeys(sets)))
    value = dict(zip(dict.fromkeys(sets), found.tolist(), strict=True))
    whole = value[every]
    rows: list[tuple[Any, ...]] = [
        ("faithfulness", f"all {len(circuit)} heads", value[circuit], whole, value[circuit] / whole)
    ]
    gaps = list[float]()
    for role, parts in groups.items():
        left, right = value[circuit - parts], value[every - parts]
        gaps.append(abs(left - right) / abs(whole))
        rows.append(("completeness", f"without {role}: {named(sorted(parts))}", left, right, gaps[-1]))
    for role, part in members:
        rest = groups[role] - {part}
        losses = (value[circuit] - value[circuit - {part}], value[circuit - rest] - value[circuit - rest - {part}])
        best = int(np.argmax(np.abs(losses)))
        start = (circuit, circuit - rest)[best]
        rows.append(
            (
                "minimality",
                f"head {part[0]}.{part[1]} ({role})",
                value[start],
                value[start] - losses[best],
                losses[best] / whole,
            )
        )
    table = Table(
        title="Is this the circuit?",
        columns=("question", "of", f"circuit ({unit})", f"compared with ({unit})", "share"),
        rows=tuple((*row[:2], *(round(float(cell), 4) for cell in row[2:])) for row in rows),
        evidence=(Evidence("how to read", "Faithfulness: the circuit alone against the whole model, 1 is all of it. "
                           "Completeness: circuit and model without one role, the share is the gap and 0 is best. "
                           "Minimality: with and without one head, the share is what the head alone adds."),),
    )  # fmt: skip
    return table, _faithfulness(len(circuit), value[circuit], whole, value[frozenset()], max(gaps))


def _faithfulness(heads: int, circuit: float, whole: float, nothing: float, gap: float) -> Evidence:
    share = circuit / whole
    return Evidence(
        "the circuit's faithfulness",
        f"With all other heads at their mean over corrupted prompts, the {heads} heads give {100 * share:.0f} % of the "
        f"target's {whole:.3g}; no heads at all give {100 * nothing / whole:.0f} %. Largest gap in completeness: "
        f"{100 * gap:.0f} %.",
        {"faithfulness": share, "model": whole, "circuit": circuit, "nothing": nothing, "completeness_gap": gap},
        ok=bool(share >= 0.5),
    )
