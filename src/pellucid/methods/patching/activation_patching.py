"""Activation patching: put single values of the clean run into the corrupted run and see the answer come back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch

from pellucid.core.axes import parse_site
from pellucid.core.metadata import method
from pellucid.core.pairs import Pair
from pellucid.core.params import Count, PromptLike, SiteName, TargetLike
from pellucid.core.results import Evidence, Scores
from pellucid.core.tokens import Tokens
from pellucid.engine.capture import capture, expand, part_name
from pellucid.engine.coalitions import standard_error
from pellucid.engine.cone import score_edits
from pellucid.engine.over_pairs import AskedPair, against_null, as_far, paired, several_pairs, stacked_pairs
from pellucid.engine.patch_places import aligned, grid_of, realigned
from pellucid.engine.readout import Readout
from pellucid.engine.targets import resolve
from pellucid.models.edits import Edit
from pellucid.models.subject import Subject


@method(
    rows=("N-CI1",),
    paper="arXiv:2309.16042",
    takes="pair",
    produces="scores",
    axes=("layer", "position"),
    needs=("activations",),
    cost="(layers*positions+4)*F",
)
def activation_patching(
    subject: Subject, clean: PromptLike | Pair, *, corrupt: PromptLike | None = None, target: TargetLike = None,
    contrast: int | str | None = None, site: SiteName = "resid_pre", positions: Literal["each", "all"] = "each",
    others: Sequence[Pair] = (), other_targets: Sequence[Any] | None = None,
    other_contrasts: Sequence[Any] | None = None, seed: Count = 0,
) -> Scores:  # fmt: skip
    """Score every place of a site by the change of the target when its clean value is put into the corrupted run.

    R[l, p] = f(corrupt with the value at layer l and position p taken from clean) - f(corrupt); positive means that
    the place carries what makes the clean answer. Heads, neurons and patterns have their own axes:
    [layer, head, position], [layer, neuron, position], [layer, head, query]. Exact. Over several pairs it is the mean,
    with paired standard errors and a null: each place moved as far in a random direction, which costs as much again
    (Zhang & Nanda 2023, arXiv:2309.16042; Meng et al. 2022, arXiv:2202.05262; Vig et al. 2020).

    Args:
        subject: the model, from `pellucid.load`.
        clean: the prompt whose values are taken, or a `Pair` of both prompts.
        corrupt: the prompt that is patched; as many tokens as `clean`, unless a `Pair` aligns them.
        target: what to explain; None means what the model predicts on `clean`.
        contrast: the alternative to compare with.
        site: the part of a block, such as "resid_pre", "attn.z", "mlp.post" or "attn.pattern", in every layer.
        positions: patch "each" position (or query) by itself, or "all" together: [layer, head] for heads.
        others: further pairs to average over, of equally many tokens.
        other_targets: a target for each of the others; None takes `target`.
        other_contrasts: an alternative for each of the others; None takes `contrast`.
        seed: of the null.

    Returns:
        Scores [layer, position] or with the site's own axes; clean and corrupted scores are in the evidence.

    Raises:
        InputError: prompts of different length without an alignment, or pairs of different length.
        SiteError: a site that the model lacks.
    """
    pair = clean if isinstance(clean, Pair) else Pair(clean, corrupt)
    asked = several_pairs(AskedPair(pair, target, contrast), others, other_targets, other_contrasts)
    generator = torch.Generator().manual_seed(seed) if others else None
    runs = [_patched(subject, one, site, positions == "each", generator) for one in asked]
    first, grids = runs[0], stacked_pairs([one.effects for one in runs])
    result = Scores(
        title=f"Activation patching at {site}" + (f", over {len(runs)} pairs" if others else ""),
        values=grids.mean(0),
        axes=("layer", *first.axes),
        unit=first.readout.unit,
        tokens=first.tokens,
        target=first.readout.description,
        sign="positive restores the clean answer",
        labels={"layer": tuple(str(i) for i in range(grids.shape[1]))},
        std_error=standard_error(grids) if others else None,
        evidence=(_ends(*np.mean([one.ends for one in runs], 0)),),
    )
    nulls = [one.null for one in runs if one.null is not None]
    return result.with_evidence(paired(grids), against_null(grids, np.stack(nulls))) if nulls else result


@dataclass(frozen=True, eq=False)
class _Patched:
    """One pair: effects (and those of the null) over the site's axes, and the scores of the clean and corrupted run."""

    effects: np.ndarray
    null: np.ndarray | None
    ends: tuple[float, float]
    axes: tuple[str, ...]
    readout: Readout
    tokens: Tokens


def _patched(subject: Subject, asked: AskedPair, site: str, each: bool, generator: torch.Generator | None) -> _Patched:
    """Patch every place of one pair, and with a generator every place of the null."""
    good, bad = subject.encode(asked.pair.clean), subject.encode(asked.pair.corrupt)
    moved = aligned(asked.pair, good, bad)
    readout = resolve(subject, good, asked.target, asked.contrast)
    names = expand(subject, part_name(subject, site))
    values = capture(subject, good, names)
    values = {name: realigned(value, name, moved, len(bad)) for name, value in values.items()}
    axes, shape, places = grid_of(names[0], values[names[0]], sorted(moved), each)
    given = [values]
    if generator is not None:
        plain = capture(subject, bad, names)
        dims = [dim for dim, axis in enumerate(parse_site(names[0]).axes) if axis not in axes]
        given.append({name: as_far(plain[name], value, dims, generator) for name, value in values.items()})
    edits = [(Edit(name, "patch_from", source[name], place),) for source in given for name in names for place in places]
    scores = score_edits(subject, bad, readout, [(), *edits])[:, 0]
    best = score_edits(subject, good, readout, [()])[0, 0]
    grids = np.zeros((len(given), len(names), *shape))
    where = [tuple(place[axis] for axis in axes) for place in places]
    changes = (scores[1:] - scores[0]).reshape(len(given), len(names), len(places))
    for column, place in enumerate(where):
        grids[(slice(None), slice(None), *place)] = changes[..., column]
    null = grids[1] if generator is not None else None
    return _Patched(grids[0], null, (float(best), float(scores[0])), axes, readout, bad)


def _ends(clean: float, corrupt: float) -> Evidence:
    return Evidence(
        "clean and corrupted scores",
        f"The target scores {clean:.3g} on the clean and {corrupt:.3g} on the corrupted prompt; a full repair is "
        f"{clean - corrupt:+.3g}.",
        {"clean": float(clean), "corrupt": float(corrupt), "difference": float(clean - corrupt)},
        ok=bool(clean > corrupt),
    )
