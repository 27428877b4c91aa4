"""Units in groups: sentences of words, messages of sentences, or equal stretches where there is no text."""

from __future__ import annotations

import bisect
import math
from typing import TYPE_CHECKING, Literal

import numpy as np

from pellucid.core.errors import InputError
from pellucid.core.tokens import Tokens, Units

if TYPE_CHECKING:
    from pellucid.models.subject import Subject

Grouping = Literal["auto", "word", "sentence", "line", "message"] | int
Groups = tuple[tuple[int, ...], ...]


def grouped(subject: Subject, tokens: Tokens, units: Units, grouping: Grouping = "auto") -> Groups:
    """Return the units in groups of neighbours: for each group the indices of its units, in order.

    Args:
        subject: the model, which cuts the prompt.
        tokens: the prompt.
        units: what is put into groups.
        grouping: a coarser kind of unit; a number of groups of (nearly) equal size; or "auto": the finest of word,
            sentence and message that makes fewer groups than there are units and more than one, else about sqrt(n)
            groups. A unit belongs to the group in which it starts.

    Raises:
        InputError: a kind of group that the prompt does not have, or fewer than one group.
    """
    count = len(units)
    if isinstance(grouping, int):
        if grouping < 1:
            raise InputError(f"{grouping} groups were asked for; ask for at least one.")
        return _stretches(count, grouping)
    if grouping != "auto":
        return _within(units, subject.units(tokens, grouping))
    kinds = ("word", "sentence", "message") if tokens.text else ()
    for kind in kinds:
        found = _within(units, subject.units(tokens, kind))
        if 1 < len(found) < count:
            return found
    return _stretches(count, round(math.sqrt(count)))


def halves(groups: Groups) -> Groups:
    """Return every group of two or more units split in two, the others as they are."""
    parts: list[tuple[int, ...]] = []
    for group in groups:
        middle = (len(group) + 1) // 2
        parts += [group[:middle], group[middle:]] if len(group) > 1 else [group]
    return tuple(parts)


def unfolded(present: np.ndarray, groups: Groups, units: int) -> np.ndarray:
    """Return coalitions of groups as coalitions of units: [n, groups] -> [n, units]; units in no group are absent."""
    masks = np.zeros((len(present), units), dtype=bool)
    for number, group in enumerate(groups):
        masks[:, list(group)] = present[:, [number]]
    return masks


def shared_out(values: np.ndarray, groups: Groups, units: int) -> np.ndarray:
    """Return the score of each group split evenly over its units: [groups, targets] -> [units, targets]."""
    found = np.zeros((units, values.shape[1]))
    for value, group in zip(values, groups, strict=True):
        found[list(group)] = value / len(group)
    return found


def _stretches(count: int, size: int) -> Groups:
    return tuple(tuple(int(i) for i in part) for part in np.array_split(np.arange(count), min(size, count)))


def _within(units: Units, coarse: Units) -> Groups:
    starts = [start for start, _ in coarse.spans]
    found: dict[int, list[int]] = {}
    for number, (start, _) in enumerate(units.spans):
        found.setdefault(max(bisect.bisect_right(starts, start) - 1, 0), []).append(number)
    return tuple(tuple(group) for group in found.values())
