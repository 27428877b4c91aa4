"""Coalitions of units and the games played on them."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np


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
    batch: int = 8,
) -> tuple[np.ndarray, np.ndarray, int]:
    """Estimate Shapley values from random orders until the largest standard error falls under `precision`.

    Args:
        players: number of players.
        value: maps coalitions [n, players] to [n, targets].
        permutations_at_most: largest number of orders (rounded up to pairs).
        precision: stop when every standard error is below this share of |v(all) - v(none)|; None never stops early.
        rng: source of randomness.
        batch: orders drawn between two looks at the standard error; even.

    Returns:
        means [players, targets], standard errors of the same shape (from antithetic pairs, which are independent) and
        the number of orders. Unbiased for a fixed number of orders; each order sums to v(all) - v(none), so the mean
        does too.
    """
    draw = permutations(players, rng)
    pairs: list[np.ndarray] = []
    while 2 * len(pairs) < permutations_at_most:
        count = min(batch, permutations_at_most - 2 * len(pairs))
        orders = [next(draw) for _ in range(count + count % 2)]
        values = value(np.concatenate([walk(order) for order in orders]))
        gains = np.diff(values.reshape(len(orders), players + 1, -1), axis=1)
        by_player = np.zeros_like(gains)
        for i, order in enumerate(orders):
            by_player[i, order] = gains[i]
        pairs.extend((by_player[::2] + by_player[1::2]) / 2)
        error = standard_error(np.stack(pairs))
        total = np.abs(
            values.reshape(len(orders), players + 1, -1)[0, -1] - values.reshape(len(orders), players + 1, -1)[0, 0]
        )
        if precision is not None and len(pairs) >= 8 and bool((error <= precision * np.maximum(total, 1e-12)).all()):
            break
    stacked = np.stack(pairs)
    return stacked.mean(0), standard_error(stacked), 2 * len(pairs)


def standard_error(draws: np.ndarray) -> np.ndarray:
    """Return the standard error of the mean over the first axis; NaN for a single draw."""
    if len(draws) < 2:
        return np.full(draws.shape[1:], np.nan)
    error: np.ndarray = draws.std(0, ddof=1) / np.sqrt(len(draws))
    return error
