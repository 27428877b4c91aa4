"""Estimates of game indices from sampled coalitions: unbiased, sharpened by a regression, with standard errors.

An index is linear in the game, so index(v) = index(g) + index(v - g) for any simple game g whose index is known. Each
draw corrects a regression g that was fitted without it: the index of what g leaves is estimated by importance sampling,
which has no bias, whatever g is, and little spread where g fits well (Witter, Liu & Musco 2025, arXiv:2506.11849).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from pellucid.engine.coalitions import standard_error
from pellucid.engine.designs import Design, Sizes, design, log_mass
from pellucid.engine.games import sets_up_to
from pellucid.engine.linear_indices import LinearIndex

PENALTIES = np.logspace(-12, 2, 15)
LOOKS = 8
FOLDS = 8


@dataclass(frozen=True)
class Estimate:
    """Values [entries, targets], their standard errors (None if exact), the whole change [targets] and the draws."""

    values: np.ndarray
    error: np.ndarray | None
    difference: np.ndarray
    draws: int


def estimate(
    players: int,
    value: Callable[[np.ndarray], np.ndarray],
    index: LinearIndex,
    *,
    samples: int,
    sizes: Sizes,
    rng: np.random.Generator,
    order: int = 1,
    precision: float | None = None,
) -> Estimate:
    """Estimate an index from a sample of coalitions.

    Args:
        players: number of players.
        value: maps coalitions [n, players] to [n, targets].
        index: the index.
        samples: largest number of coalitions; where all 2^players fit, the result is exact.
        sizes: how the sizes of random coalitions are drawn.
        rng: source of randomness.
        order: 1 fits a linear regression, 2 one with all pairs.
        precision: stop when every standard error is below this share of |v(all) - v(none)|; None takes all samples.

    Returns:
        The estimate: unbiased for a fixed number of samples. Shapley values sum to v(all) - v(none) exactly.
    """
    plan = design(players, samples, sizes, rng)
    # What shares beginnings is scored together, so only as many looks are taken as may end the sampling.
    looks = 1 if precision is None else min(LOOKS, max(1, len(plan.pairs) // 8))
    chunks = np.array_split(plan.pairs, looks)
    first = value(np.concatenate([plan.full, chunks[0].reshape(-1, players)]))
    known, drawn = first[: len(plan.full)], [first[len(plan.full) :]]
    ends = known[plan.full.all(1)][0] - known[~plan.full.any(1)][0]
    if plan.exact:
        return Estimate(index.counts(plan.full, np.zeros(len(plan.full))).T @ known, None, ends, 0)
    features = sets_up_to(players, order)
    seen = np.zeros((0, 2, known.shape[1]))
    found = error = np.zeros(0)
    for chunk in chunks:
        scored = drawn.pop() if drawn else value(chunk.reshape(-1, players))
        seen = np.concatenate([seen, scored.reshape(len(chunk), 2, -1)])
        part = Design(plan.full, plan.pairs[: len(seen)], plan.log_chance)
        found, error = _adjusted(part, known, seen, index, features)
        if precision is not None and bool((error <= precision * np.maximum(np.abs(ends), 1e-12)).all()):
            break
    return Estimate(found, error, ends, 2 * len(seen))


def _adjusted(
    plan: Design, known: np.ndarray, seen: np.ndarray, index: LinearIndex, features: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return values and standard errors [entries, targets], each fold corrected by the regression on the others."""
    flat = plan.pairs.reshape(-1, plan.pairs.shape[2])
    log_chance = plan.log_chance[flat.sum(1)]
    certain = index.counts(plan.full, np.zeros(len(plan.full)))
    drawn = index.counts(flat, log_chance).reshape(len(seen), 2, -1)
    of_features = index.of_sets(features).T
    inside, outside = _holds(plan.full, features), _holds(flat, features).reshape(len(seen), 2, -1)
    weights = _fit_weights(plan, flat, log_chance, index)
    fold = np.arange(len(seen)) % min(FOLDS, len(seen) // 2)
    single = np.zeros((len(seen), drawn.shape[2], known.shape[1]))
    for number in range(fold.max() + 1):
        own, other = fold == number, fold != number
        slope, level = _fit(inside, known, outside[other], seen[other], weights[0], weights[1][other])
        base = of_features @ slope + certain.T @ (known - inside @ slope - level)
        rest = seen[own] - outside[own] @ slope - level
        single[own] = base + np.einsum("btk,btm->bkm", drawn[own], rest) / 2
    return single.mean(0), standard_error(single)


def _holds(masks: np.ndarray, sets: np.ndarray) -> np.ndarray:
    """Return which coalitions hold which sets, as numbers: [coalitions, sets]."""
    return (masks.astype(np.int64) @ sets.T.astype(np.int64) == sets.sum(1)).astype(np.float64)


def _fit_weights(
    plan: Design, flat: np.ndarray, log_chance: np.ndarray, index: LinearIndex
) -> tuple[np.ndarray, np.ndarray]:
    """Return how much the regression minds each full and each drawn coalition; any choice leaves the result unbiased.

    A coalition weighs what the index's own regression gives it, over how often it is drawn.
    """
    players = flat.shape[1]
    own = log_mass(players, index.kernel)
    with np.errstate(under="ignore"):
        full = np.exp(own[plan.full.sum(1)])
        drawn = np.exp(own[flat.sum(1)] - log_chance) / max(len(flat) / 2, 1)
    full[(plan.full.all(1)) | (~plan.full.any(1))] = (full.sum() + drawn.sum()) / (len(full) + drawn.size)
    return full, drawn.reshape(-1, 2)


def _fit(
    inside: np.ndarray, known: np.ndarray, outside: np.ndarray, seen: np.ndarray, full: np.ndarray, drawn: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return slopes [features, targets] and levels [targets] of a ridge regression.

    The penalty of each target is the one with the least generalised cross-validation error. Through one singular value
    decomposition for all penalties, which at these sizes is ten times faster than the library's.
    """
    rows = np.concatenate([inside, outside.reshape(-1, outside.shape[2])])
    values = np.concatenate([known, seen.reshape(-1, seen.shape[2])])
    weights = np.concatenate([full, drawn.ravel()])[:, None] / (full.sum() + drawn.sum())
    middle, level = (weights * rows).sum(0), (weights * values).sum(0)
    left, sizes, right = np.linalg.svd(np.sqrt(weights) * (rows - middle), full_matrices=False)
    aim = np.sqrt(weights) * (values - level)
    along = left.T @ aim
    shrink = sizes**2 / (sizes**2 + PENALTIES[:, None] * max(sizes[0] ** 2, 1e-300))
    gained = np.einsum("as,st->at", shrink * (2 - shrink), along**2)
    rest = (
        np.maximum((aim**2).sum(0) - gained, 0.0) / np.maximum(1 - (1 + shrink.sum(1)) / len(rows), 1e-9)[:, None] ** 2
    )
    best = shrink[rest.argmin(0)].T / np.maximum(sizes, 1e-12 * sizes[0] + 1e-300)[:, None]
    slope = right.T @ (best * along)
    return slope, level - middle @ slope
