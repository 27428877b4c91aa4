"""Shapley-like values from orders of a kind: shifted orders, which stratify, and orders within a hierarchy."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from pellucid.engine.adjusted import Estimate
from pellucid.engine.coalitions import standard_error, walk

LEAST_DRAWS = 8
DRAWS_AT_ONCE = 4


def rotations(players: int, strata: int, rng: np.random.Generator) -> Iterator[list[np.ndarray]]:
    """Yield without end a random order in `strata` evenly shifted forms.

    Each form alone is a uniform order; over the forms, a player stands once in each of `strata` stretches of equal
    length (at every place, where `strata` is the number of players).
    """
    while True:
        order = rng.permutation(players)
        yield [np.roll(order, -(k * players // strata)) for k in range(strata)]


def estimate_over_orders(
    players: int,
    value: Callable[[np.ndarray], np.ndarray],
    draws: Iterator[list[np.ndarray]],
    *,
    orders_at_most: int,
    precision: float | None = None,
) -> Estimate:
    """Estimate what each player adds to those before it, over orders.

    Args:
        players: number of players.
        value: maps coalitions [n, players] to [n, targets].
        draws: independent draws, each a list of orders (equally many) that are averaged.
        orders_at_most: largest number of orders; two draws are always made.
        precision: stop when every standard error is below this share of |v(all) - v(none)|; None takes all orders.

    Returns:
        The estimate, unbiased for what the orders are drawn from, with standard errors over draws. Every order shares
        out v(all) - v(none), so the mean does too.
    """
    found: list[np.ndarray] = []
    first = next(draws)
    ends, each = np.zeros(0), len(first)
    most = max(2, orders_at_most // each)
    while len(found) < most:
        # What shares beginnings is scored together, so only as many looks are taken as may end the sampling.
        count = most if precision is None else DRAWS_AT_ONCE if found else LEAST_DRAWS
        group = [first if not found and k == 0 else next(draws) for k in range(min(count, most - len(found)))]
        orders = [order for draw in group for order in draw]
        values = value(np.concatenate([walk(order) for order in orders])).reshape(len(orders), players + 1, -1)
        ends = values[0, -1] - values[0, 0]
        gains = np.zeros((len(orders), players, values.shape[2]))
        for i, order in enumerate(orders):
            gains[i, order] = np.diff(values[i], axis=0)
        found.extend(gains.reshape(-1, each, *gains.shape[1:]).mean(1))
        error = standard_error(np.stack(found))
        enough = len(found) >= LEAST_DRAWS and precision is not None
        if enough and bool((error <= (precision or 0.0) * np.maximum(np.abs(ends), 1e-12)).all()):
            break
    stacked = np.stack(found)
    return Estimate(stacked.mean(0), standard_error(stacked), ends, each * len(found))
