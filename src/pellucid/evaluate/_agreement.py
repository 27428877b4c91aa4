"""Two explanations of one input, as flat arrays, and their highest parts."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from pellucid.core.errors import InputError
from pellucid.core.results import Evidence, Scores


def pair(scores: Scores, other: Scores) -> tuple[np.ndarray, np.ndarray]:
    """Return the values of two explanations of the same parts: [parts] each.

    Raises:
        InputError: explanations of different inputs, or values that are not finite.
    """
    if scores.axes != other.axes or scores.values.shape != other.values.shape:
        raise InputError(
            f"The explanations have {scores.axes} {scores.values.shape} and {other.axes} {other.values.shape}; give "
            "two of the same input and axes."
        )
    ids = [result.tokens.ids for result in (scores, other) if result.tokens is not None]
    if len(set(ids)) > 1:
        raise InputError("The explanations belong to different prompts; give two of the same prompt.")
    first, second = (np.asarray(result.values, dtype=np.float64).ravel() for result in (scores, other))
    if not (np.isfinite(first).all() and np.isfinite(second).all()):
        raise InputError("An explanation holds values that are not finite; leave those parts out.")
    return first, second


def largest(values: np.ndarray, top: int) -> np.ndarray:
    """Return the indices of the `top` largest |values|, the largest first; equal ones in the order of the input."""
    return np.argsort(-np.abs(values), kind="stable")[:top]


def compared(
    name: str, scores: Scores, other: Scores, top: int, alike: Callable[[np.ndarray, np.ndarray], np.ndarray]
) -> Evidence:
    """Return the share of the `top` largest parts that count as alike, and its mean over random orders.

    Args:
        name: of the measure.
        scores: one explanation.
        other: another of the same input.
        top: number of parts that are compared.
        alike: says, for the signs [k, 1] and [1, k] of both, which pairs of ranks count where they hold the same part:
            [k, k] booleans.
    """
    first, second = pair(scores, other)
    count = min(top, len(first))
    own, theirs = largest(first, count), largest(second, count)
    counted = alike(np.sign(first[own])[:, None], np.sign(second[theirs])[None])
    same = own[:, None] == theirs[None]
    found = float((same & counted).sum() / count)
    chance = float(counted.sum() / len(first) / count)  # a random order puts any two ranks on one part with chance 1/n
    return Evidence(
        name,
        f"{100 * found:.0f} % of the {count} largest parts of both agree (all is best, {100 * chance:.0f} % chance).",
        {"value": found, "chance": chance, "top": float(count)},
    )
