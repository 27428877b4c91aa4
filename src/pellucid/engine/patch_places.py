"""Which place of a clean run goes where in the corrupted one, and the grid of places that are swept."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import torch

from pellucid.core.axes import parse_site
from pellucid.core.errors import InputError
from pellucid.core.pairs import Pair
from pellucid.core.tokens import Tokens


def aligned(pair: Pair, good: Tokens, bad: Tokens) -> dict[int, int]:
    """Return which clean position goes to each corrupted position."""
    if pair.alignment is not None:
        return {there: here for here, there in pair.alignment if here < len(good) and there < len(bad)}
    if len(good) != len(bad):
        raise InputError(
            f"Patching needs prompts of equal length, but clean has {len(good)} tokens and corrupt {len(bad)}; "
            "rephrase one so that tokens line up, or pass Pair(clean, corrupt, alignment)."
        )
    return {position: position for position in range(len(good))}


def realigned(value: torch.Tensor, name: str, moved: dict[int, int], length: int) -> torch.Tensor:
    """Put the clean values at the corrupted run's positions (places without a partner are never patched)."""
    for dim, axis in enumerate(parse_site(name).axes):
        if axis in ("position", "query", "key"):
            index = torch.tensor([moved.get(position, 0) for position in range(length)], device=value.device)
            value = value.index_select(dim, index)
    return value


def grid_of(
    name: str, value: torch.Tensor, moved: Sequence[int], each: bool
) -> tuple[tuple[str, ...], tuple[int, ...], list[dict[str, Any]]]:
    """Return the axes that are swept one by one, their sizes, and the places: head or neuron first, then position."""
    sizes = dict(zip(parse_site(name).axes, value.shape, strict=True))
    last = next(axis for axis in ("position", "query") if axis in sizes)
    axes = tuple(axis for axis in ("head", "neuron", last) if axis in sizes and (each or axis != last))
    together = {} if each or len(moved) == sizes[last] else {last: moved}
    swept = (moved if axis == last else range(sizes[axis]) for axis in axes)
    places = [dict(zip(axes, place, strict=True)) | together for place in itertools.product(*swept)]
    return axes, tuple(sizes[axis] for axis in axes), places
