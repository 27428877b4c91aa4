"""Editors side by side on the same facts: what each writes, how it is judged, and whether it comes off bit for bit."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy import stats

from pellucid.core.errors import EditError, InputError
from pellucid.core.results import Evidence, Scores, Table, WeightEdit
from pellucid.engine.down_projection import down_projections
from pellucid.engine.edit_cases import EditCase, nearby, paraphrased
from pellucid.evaluate.edit_efficacy import edit_efficacy
from pellucid.evaluate.edit_generality import edit_generality
from pellucid.evaluate.edit_locality import edit_locality
from pellucid.evaluate.generation_entropy import generation_entropy
from pellucid.evaluate.side_effects import side_effects
from pellucid.models import weights
from pellucid.models.subject import Subject
from pellucid.models.weight_edits import changed_in_place, inspect_weights
from pellucid.studies._editors import TRAINED, written

MOST_WRITTEN, WRITTEN = 20, 40  # prompts behind which text is written for its entropy, and its most tokens
SHARES = ("efficacy", "generality", "locality", "same nearby")
COLUMNS = (
    "editor", "efficacy", "said freely", "generality", "locality", "same answers nearby", "score",
    "n-gram entropy (bits)", "KL on neutral text (nats)", "perplexity before", "perplexity after", "layers", "rank",
    "norm ratio", "seconds", "reverted bit for bit",
)  # fmt: skip
FIGURES = {
    "efficacy": ("efficacy", "value"), "generality": ("generality", "value"), "locality": ("locality", "value"),
    "same answers nearby": ("locality", "same"), "KL on neutral text (nats)": ("side effects", "value"),
}  # fmt: skip
Checks = Mapping[str, Evidence]


@dataclass(frozen=True, eq=False)
class Edited:
    """The model after one editor wrote all facts: a view, its edit of weights (None for a memory), its judgement."""

    name: str
    subject: Subject
    edit: WeightEdit | None
    seconds: float
    checks: Checks

    @property
    def score(self) -> float:
        """Return the harmonic mean of the shares of efficacy, generality and locality that were asked for."""
        parts = [self.checks[name].values["value"] for name in SHARES[:3] if name in self.checks]
        return float(stats.hmean(np.maximum(parts, 0.0))) if min(parts) > 0 else 0.0


def edited_by(
    name: str, subject: Subject, cases: Sequence[EditCase], others: Sequence[EditCase], neutral: Sequence[Any],
    settings: Mapping[str, Any], tokens: int, seed: int,
) -> Edited:  # fmt: skip
    """Let an editor write the facts of all cases at once, and judge the model that comes out.

    Raises:
        InputError: no such editor, one whose result is no edit, or too few other facts to train on.
        EditError, CapabilityError: what the editor itself refuses.
    """
    start = time.perf_counter()
    after, edit = written(name, subject, cases, others, settings, seed)
    seconds = time.perf_counter() - start
    checks = judged(subject, after, cases, neutral, tokens, seed)
    prompts = [case.fact.text for case in cases[:MOST_WRITTEN]]
    checks["fluency"] = generation_entropy(subject, after, prompts, tokens=WRITTEN, seed=seed)
    return Edited(name, after, edit, seconds, checks)


def judged(
    subject: Subject, after: Subject, cases: Sequence[EditCase], neutral: Sequence[Any], tokens: int, seed: int
) -> dict[str, Evidence]:
    """Return what the change did to the facts, their paraphrases, their neighbours and neutral text."""
    found = {"efficacy": edit_efficacy(subject, after, cases, tokens=tokens, seed=seed)}
    if paraphrased(cases):
        found["generality"] = edit_generality(subject, after, cases, tokens=0, seed=seed)
    if nearby(cases):
        found["locality"] = edit_locality(subject, after, cases, tokens=0, seed=seed)
    found["side effects"] = side_effects(subject, after, neutral, seed=seed)
    return found


def one_at_a_time(
    names: Sequence[str], subject: Subject, cases: Sequence[EditCase], neutral: Sequence[Any],
    settings: Mapping[str, Mapping[str, Any]], seed: int,
) -> Table:  # fmt: skip
    """Return a table of means over facts, each written alone into the model as it was.

    Editors that are trained, and those that refuse a fact alone, have no row.
    """
    rows = list[tuple[Any, ...]]()
    for name in [one for one in names if one not in TRAINED]:
        try:
            made = [written(name, subject, [case], (), settings[name], seed)[0] for case in cases]
        except (EditError, InputError):
            continue
        found = [judged(subject, after, [case], neutral, 0, seed) for after, case in zip(made, cases, strict=True)]
        rows.append((name, *(_short(_mean(found, *where)) for where in FIGURES.values())))
    return Table(title=f"One fact at a time: means over {len(cases)} facts", columns=("editor", *FIGURES),
                 rows=tuple(rows))  # fmt: skip


def _mean(found: Sequence[Checks], check: str, figure: str) -> float:
    """Return the mean of a figure over facts, NaN where none was asked."""
    values = [checks[check].values[figure] for checks in found if check in checks]
    return float(np.mean(values)) if values else float("nan")


def fingerprint(model: Any) -> str:
    """Return a hash of every bit of all weights and buffers; offloaded ones are left out."""
    found = hashlib.sha256()
    for name, value in (*model.named_parameters(), *model.named_buffers()):
        for tensor in weights.plain(value):
            if tensor.device.type != "meta":
                flat = tensor.detach().cpu().contiguous().reshape(-1)
                found.update(name.encode() + flat.view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


def reverted(subject: Subject, one: Edited, before: str) -> bool:
    """Write an edit into the live model and take it off; say whether bits changed and all of them came back.

    A memory beside the weights must have left them alone.
    """
    if one.edit is None:
        return fingerprint(subject.model) == before
    with subject.lock, changed_in_place(subject, one.edit):
        during = fingerprint(subject.model)
    return during != before and fingerprint(subject.model) == before


def table_of(subject: Subject, models: Sequence[Edited], came_back: Mapping[str, bool]) -> Table:
    """Return one row per editor below one for the model before any change."""
    rows = [_before(models[0].checks)] if models else []
    rows += [_row(subject, one, came_back[one.name]) for one in models]
    return Table(
        title="The same facts, written by each editor", columns=COLUMNS, rows=tuple(rows),
        evidence=(Evidence("how to read", "Efficacy, generality: the share of facts and paraphrases where the new "
                           "answer beats the true one. Locality: where the true answer about a neighbour beats the new "
                           "one; beside it, where the likeliest next token stays. Score: their harmonic mean. "
                           "Rank and norm ratio: the largest of the changed matrices. A large KL or perplexity says "
                           "that the rest of the model was hurt, however well the facts hold."),),
    )  # fmt: skip


def _before(checks: Checks) -> tuple[Any, ...]:
    def of(name: str, figure: str = "before") -> Any:
        return _short(checks[name].values.get(figure)) if name in checks else ""

    parts = [checks[name].values["before"] for name in SHARES[:3] if name in checks]
    score = float(stats.hmean(parts)) if min(parts) > 0 else 0.0
    perplexity = of("side effects", "perplexity_before")
    return ("none", of("efficacy"), of("efficacy", "says_before"), of("generality"), of("locality"),
            1.0 if "locality" in checks else "", _short(score), of("fluency"), 0.0, perplexity, perplexity, "", "", "",
            "", "")  # fmt: skip


def _row(subject: Subject, one: Edited, came_back: bool) -> tuple[Any, ...]:
    def of(name: str, figure: str = "value") -> Any:
        return _short(one.checks[name].values.get(figure)) if name in one.checks else ""

    written: tuple[Any, ...] = ("beside the weights", "", "")
    if one.edit is not None:
        sizes = inspect_weights(subject, one.edit).rows
        ranks, ratios = [row[3] for row in sizes], [row[-1] for row in sizes]
        written = (", ".join(_layers(subject, one.edit)), max(ranks), _short(max(ratios)))
    return (
        one.name, of("efficacy"), of("efficacy", "says"), of("generality"), of("locality"), of("locality", "same"),
        _short(one.score), of("fluency"), of("side effects"), of("side effects", "perplexity_before"),
        of("side effects", "perplexity"), *written, round(one.seconds, 1), "yes" if came_back else "NO",
    )  # fmt: skip


def _layers(subject: Subject, edit: WeightEdit) -> list[str]:
    """Return the numbers of the layers whose feed-forward matrices an edit changes; other parameters by name."""
    known = {at.name: str(at.layer) for at in down_projections(subject, list(range(subject.layers)))}
    return [known.get(name, name) for name in edit.names]


def _short(value: float | None) -> Any:
    """Return a number to three digits; nothing for one that was not measured."""
    return "" if value is None or not np.isfinite(value) else float(f"{value:.3g}")


def grid_of(models: Sequence[Edited]) -> Scores:
    """Return the shares of each editor as a picture: [method, part], the model before any change first."""
    places = [("efficacy", ""), ("generality", ""), ("locality", ""), ("locality", "same_")]
    kept = [(name, place) for name, place in zip(SHARES, places, strict=True) if place[0] in models[0].checks]
    found = [[_share(models[0].checks[name].values, f"{front}before_") for _, (name, front) in kept]]
    found += [[_share(one.checks[name].values, front) for _, (name, front) in kept] for one in models]
    values, errors = np.moveaxis(np.array(found), -1, 0)
    return Scores(
        title="Which facts hold, and what stays", values=values, std_error=errors, axes=("method", "part"),
        unit="share", sign="1 is best",
        labels={"method": ("no edit", *(one.name for one in models)), "part": tuple(name for name, _ in kept)},
        words=tuple(f"{100 * value:.0f} %" for value in values.ravel()),
    )  # fmt: skip


def _share(values: Mapping[str, float], front: str) -> tuple[float, float]:
    """Return a figure and its standard error, that of a normal distribution with the same 95 % interval."""
    return values[front.rstrip("_") or "value"], (values[f"{front}high"] - values[f"{front}low"]) / 3.92


def verdict(one: Edited) -> Evidence:
    """Say in one line what an editor did, with intervals."""
    found = [one.checks[name] for name in ("efficacy", "locality", "side effects") if name in one.checks]
    values = {"score": one.score, **{name: check.values["value"] for name, check in one.checks.items()}}
    return Evidence(one.name, " ".join(check.summary for check in found), values, ok=one.checks["side effects"].ok)
