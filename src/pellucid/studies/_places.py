"""Positions by what stands there, so that prompts of different length can be averaged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pellucid.core.results import Scores
from pellucid.core.tokens import Tokens
from pellucid.studies._means import mean_of


def places_around(tokens: Tokens, spans: Mapping[str, tuple[int, int]]) -> dict[str, list[int]]:
    """Return the positions of each name in reading order: spans, what lies before, between and behind, the last.

    A span of several tokens is split into its tokens before the last, and its last.

    Args:
        tokens: the prompt.
        spans: character ranges by name, in the order of the text.
    """
    found: dict[str, list[int]] = {"before": []}
    last, offsets = len(tokens) - 1, tokens.offsets or ()
    start, previous = 0, ""
    for name, (low, high) in spans.items():
        own = [p for p in range(last) if not tokens.special[p] and offsets[p][0] < high and offsets[p][1] > low]
        between = [p for p in range(start, own[0]) if not tokens.special[p]] if own else []
        found["before" if not previous else f"behind the {previous}"] = between
        found[f"{name}, but its last token"], found[f"{name}'s last token"] = own[:-1], own[-1:]
        start, previous = (own[-1] + 1 if own else start), name
    found[f"behind the {previous}"] = [p for p in range(start, last) if not tokens.special[p]]
    found["last token"] = [last]
    return found


def by_place(found: Scores, places: Mapping[str, Sequence[int]]) -> Scores:
    """Return [layer, part]: scores [layer, position] averaged over the positions of each name (NaN: none)."""
    columns = [
        found.values[:, list(at)].mean(1) if at else np.full(len(found.values), np.nan) for at in places.values()
    ]
    return Scores(
        values=np.stack(columns, 1), axes=("layer", "part"),
        labels={"layer": found.labels["layer"], "part": tuple(places)}, unit=found.unit, sign=found.sign,
    )  # fmt: skip


def mean_by_place(found: Sequence[Scores], title: str, says: str, **changes: Any) -> Scores:
    """Return the mean over prompts of scores by place; places that no prompt has are left out, others count as present.

    A place that only some prompts have is averaged over those.
    """
    stack = np.stack([one.values for one in found])
    here: np.ndarray = np.logical_not(np.isnan(stack).all((0, 1)))
    kept = [name for name, there in zip(found[0].labels["part"], here, strict=True) if there]
    every = not np.isnan(stack[:, :, here]).any()
    labels = {"layer": found[0].labels["layer"], "part": tuple(kept)}
    if every:
        parts = [
            Scores(values=one.values[:, here], axes=one.axes, labels=labels, unit=one.unit, sign=one.sign)
            for one in found
        ]
        return mean_of(parts, title, says, **changes)
    mean = Scores(
        values=np.nanmean(stack[:, :, here], 0),
        axes=found[0].axes,
        labels=labels,
        unit=found[0].unit,
        sign=found[0].sign,
    )
    return mean_of([mean], title, says + " A place that only some prompts have is averaged over those.", **changes)
