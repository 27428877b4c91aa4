"""Coalitions of units and the games played on them."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

LEAST_ORDERS = 16
ROWS_AT_ONCE = 4096
ORDERS_AT_ONCE = 8


def all_coalitions(players: int) -> np.ndarray:
    """Return every coalition as a row of booleans: [2**players, players]; row r holds the bits of r, player 0 first."""
    return (np.arange(2**players)[:, None] >> np.arange(players)) % 2 == 1


def exact_shapley(values: np.ndarray, players: int) -> np.ndarray:
    """Return Shapley values from all coalition values.

    Args:
        values: [2**players, targets] in the order of `all_coalitions`.
        players: number of players.

    Returns:
        [players, targets]. Exact: sums to v(all) - v(none).
    """
    masks = all_coalitions(players)
    sizes = masks.sum(1)
    factorial = np.cumprod([1.0, *range(1, players + 1)])
    weights = factorial[sizes] * factorial[np.maximum(players - sizes - 1, 0)] / factorial[players]
    result = np.zeros((players, values.shape[1]))
    for player in range(players):
        without = np.flatnonzero(~masks[:, player])
        gain = values[without | (1 << player)] - values[without]
        result[player] = weights[without] @ gain
    return result


def permutations(players: int, rng: np.random.Generator, antithetic: bool = True) -> Iterator[np.ndarray]:
    """Yield random orders without end, with `antithetic` each followed by its reverse (both uniform)."""
    while True:
        order = rng.permutation(players)
        yield order
        if antithetic:
            yield order[::-1]


def walk(order: np.ndarray) -> np.ndarray:
    """Return the coalitions met on one order, from none to all: [players + 1, players] booleans."""
    masks = np.zeros((len(order) + 1, len(order)), dtype=bool)
    for step, player in enumerate(order):
        masks[step + 1 :, player] = True
    return masks


def sampled_shapley(
    players: int,
    value: Callable[[np.ndarray], np.ndarray],
    *,
    permutations_at_most: int,
    precision: float | None,
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray, int]:
    """Estimate Shapley values from random orders until the largest standard error falls under `precision`.

    Args:
        players: number of players.
        value: maps coalitions [n, players] to [n, targets].
        permutations_at_most: largest number of orders; all of them are taken without a `precision`.
        precision: stop when every standard error is below this share of |v(all) - v(none)|; None never stops early.
        rng: source of randomness.

    Returns:
        means [players, targets], standard errors of the same shape (over antithetic pairs, which are independent; NaN
        for fewer than two) and the number of orders. Unbiased for a fixed number of orders; each order sums to
        v(all) - v(none), so the mean does too.
    """
    draw = permutations(players, rng)
    found, error = np.zeros((0, players, 1)), np.zeros(0)
    while len(found) < permutations_at_most:
        # What shares beginnings is scored together, so only as many looks are taken as may end the sampling.
        most = max(1, ROWS_AT_ONCE // (players + 1) // 2) * 2
        count = most if precision is None else ORDERS_AT_ONCE if len(found) else LEAST_ORDERS
        orders = [next(draw) for _ in range(min(count, permutations_at_most - len(found)))]
        values = value(np.concatenate([walk(order) for order in orders])).reshape(len(orders), players + 1, -1)
        gains = np.zeros((len(orders), players, values.shape[2]))
        for i, order in enumerate(orders):
            gains[i, order] = np.diff(values[i], axis=0)
        found = np.concatenate([found, gains]) if len(found) else gains
        error, total = error_over_pairs(found), np.abs(values[0, -1] - values[0, 0])
        if (
            precision is not None
            and len(found) >= LEAST_ORDERS
            and (error <= precision * np.maximum(total, 1e-12)).all()
        ):
            break
    return found.mean(0), error, len(found)


def error_over_pairs(draws: np.ndarray) -> np.ndarray:
    """Return the standard error of the mean of draws that come in pairs, of which a last single one may be left.

    Only the pairs are independent of each other: what a pair is away from the mean counts as one.
    """
    pairs = -(-len(draws) // 2)
    if pairs < 2:
        return np.full(draws.shape[1:], np.nan)
    away = draws - draws.mean(0)
    together = away[::2].copy()
    together[: len(draws) // 2] += away[1::2]
    error: np.ndarray = np.sqrt(pairs / (pairs - 1) * (together**2).sum(0)) / len(draws)
    return error


def standard_error(draws: np.ndarray) -> np.ndarray:
    """Return the standard error of the mean over the first axis; NaN for a single draw."""
    if len(draws) < 2:
        return np.full(draws.shape[1:], np.nan)
    error: np.ndarray = draws.std(0, ddof=1) / np.sqrt(len(draws))
    return error
