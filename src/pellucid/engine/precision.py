"""Confidence bounds of a share of successes, from the Kullback-Leibler divergence of coins (Chernoff)."""

from __future__ import annotations

import math


def divergence(share: float, chance: float) -> float:
    """Return the divergence of a coin of `share` from one of `chance`, in nats; infinite where that cannot be."""
    total = 0.0
    for p, q in ((share, chance), (1 - share, 1 - chance)):
        if p > 0:
            total += p * math.log(p / q) if q > 0 else math.inf
    return total


def lower_bound(share: float, cases: int, level: float) -> float:
    """Return the least chance that `cases` with this share of successes leave possible.

    Args:
        share: of successes.
        cases: how many; none leave everything possible.
        level: cases times divergence may reach it; log(1 / d) errs with a chance below d.
    """
    return 1.0 - upper_bound(1.0 - share, cases, level)


def upper_bound(share: float, cases: int, level: float) -> float:
    """Return the largest chance that `cases` with this share of successes leave possible, as in `lower_bound`."""
    if cases == 0:
        return 1.0
    low, high = share, 1.0
    for _ in range(40):
        middle = (low + high) / 2
        if cases * divergence(share, middle) > level:
            high = middle
        else:
            low = middle
    return high
