"""Linear surrogates of a game: the Shapley regression, weighted least squares with error bars, sparse choices."""

from __future__ import annotations

import numpy as np
from sklearn.linear_model import lars_path

from pellucid.core.results import Evidence
from pellucid.engine.designs import Design, log_mass


def shapley_regression(plan: Design, known: np.ndarray, seen: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
    """Return Shapley values as the weighted regression of Lundberg & Lee (2017, arXiv:1705.07874).

    min over phi with sum phi = v(all) - v(none) of sum over T of k(T) [v(T) - v(none) - sum of phi_i, i in T]^2, where
    k is the Shapley kernel. Consistent; its bias shrinks as 1 / samples (Covert & Lee 2021, arXiv:2012.01536).

    Args:
        plan: the coalitions.
        known: values of `plan.full`, [full, targets].
        seen: values of `plan.pairs`, [pairs, 2, targets].

    Returns:
        values [players, targets] and standard errors (None where every coalition is known, and the values exact).
    """
    players = plan.full.shape[1]
    ends = plan.full.all(1), ~plan.full.any(1)
    empty, total = known[ends[1]][0], known[ends[0]][0] - known[ends[1]][0]
    if players == 1:
        return total[None], None
    inner = ~(ends[0] | ends[1])
    flat = plan.pairs.reshape(-1, players)
    masks = np.concatenate([plan.full[inner], flat]).astype(np.float64)
    sizes = masks.sum(1).astype(int)
    chance = np.concatenate([np.zeros(int(inner.sum())), plan.log_chance[flat.sum(1)] + np.log(max(len(flat), 1))])
    weights = np.exp(log_mass(players, "kernel")[sizes] - chance)
    # With the mean taken out of every row, the slopes sum to zero by themselves, which is the constraint.
    centred, part = masks - sizes[:, None] / players, sizes[:, None] / players
    values = np.concatenate([known[inner], seen.reshape(len(flat), known.shape[1])]) - empty - part * total
    inverse = np.linalg.pinv((centred * weights[:, None]).T @ centred, rcond=1e-10, hermitian=True)
    slope = inverse @ (centred * weights[:, None]).T @ values
    result = total / players + slope
    if plan.exact:
        return result, None
    rest = (values - centred @ slope) * weights[:, None]
    pull = (centred @ inverse)[:, :, None] * rest[:, None]
    by_pair = pull[int(inner.sum()) :].reshape(len(plan.pairs), 2, players, -1).sum(1)
    freedom = len(by_pair) / max(len(by_pair) - players / 2, 1.0)
    return result, np.sqrt(len(by_pair) * by_pair.var(0, ddof=1) * freedom)


def weighted_linear(
    masks: np.ndarray, values: np.ndarray, weights: np.ndarray, ridge: float = 0.0
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Fit values = level + masks @ slope by weighted least squares, the slopes (not the level) under a ridge penalty.

    Args:
        masks: coalitions, [rows, players].
        values: [rows, targets].
        weights: of the rows, [rows].
        ridge: penalty on the sum of squared slopes.

    Returns:
        slopes [players, targets], levels [targets], standard errors of the slopes (from the residuals of each row left
        out, HC3, so unequal spread is allowed) and the predictions of each row from all others [rows, targets].
    """
    rows = np.concatenate([np.ones((len(masks), 1)), masks.astype(np.float64)], axis=1)
    penalty = np.diag([0.0, *[ridge] * masks.shape[1]])
    inverse = np.linalg.pinv((rows * weights[:, None]).T @ rows + penalty, rcond=1e-10, hermitian=True)
    pull = inverse @ (rows * weights[:, None]).T
    found = pull @ values
    leverage = np.clip(np.einsum("rp,pr->r", rows, pull), 0.0, 1 - 1e-9)[:, None]
    outside = (values - rows @ found) / (1 - leverage)
    error = np.sqrt((pull**2) @ outside**2)
    return found[1:], found[0], error[1:], values - outside


def lasso_choice(masks: np.ndarray, values: np.ndarray, weights: np.ndarray, count: int) -> np.ndarray:
    """Return which `count` players the lasso path takes first for one target: [players] booleans.

    Args:
        masks: coalitions, [rows, players].
        values: [rows].
        weights: of the rows, [rows].
        count: how many players to keep at most.
    """
    share = (weights / weights.sum())[:, None]
    root = np.sqrt(weights)[:, None]
    centred = root * (masks - (share * masks).sum(0))
    aim = root[:, 0] * (values - (share[:, 0] * values).sum())
    _, _, path = lars_path(centred, aim, method="lasso")
    sizes = (path != 0).sum(0)
    chosen: np.ndarray = path[:, int(np.flatnonzero(sizes <= count)[-1])] != 0
    return chosen


def surrogate_fit(values: np.ndarray, predicted: np.ndarray, weights: np.ndarray) -> Evidence:
    """Return the evidence how well a surrogate predicts coalitions that it was not fitted to: 1 - (rest / spread).

    Args:
        values: [rows, targets].
        predicted: from all other rows, [rows, targets].
        weights: of the rows, [rows].
    """
    level = (weights[:, None] * values).sum(0) / weights.sum()
    spread = (weights[:, None] * (values - level) ** 2).sum(0)
    rest = (weights[:, None] * (values - predicted) ** 2).sum(0)
    explained = 1 - rest / np.maximum(spread, 1e-300)
    worst = float(np.where(spread > 1e-18, explained, 1.0).min())
    return Evidence(
        "surrogate fit",
        f"The linear surrogate predicts coalitions that it was not fitted to with R² = {worst:.2f} (1 is perfect, 0 no "
        "better than their mean).",
        {"r2": worst},
        ok=bool(worst > 0.5),
    )
