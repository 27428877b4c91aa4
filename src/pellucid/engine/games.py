"""The mathematics of games: dividends, Fourier coefficients, values and interactions as sums over coalitions.

A game on n players is a table [2**n, targets] in the order of `all_coalitions`, or a sum of unanimity games: sets
[sets, n] booleans with their dividends [sets, targets]. Every index here is linear in the dividends, with a weight that
depends on sizes alone, so that one table of weights serves tables and sparse games alike.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations
from typing import Literal

import numpy as np
from scipy.special import bernoulli, comb

Index = Literal["SII", "k-SII", "STII", "FSII", "BII", "Moebius"]


def dividends(values: np.ndarray) -> np.ndarray:
    """Return the Harsanyi dividends (Moebius transform) of a table: sum over R in S of (-1)^(|S|-|R|) v(R). Exact."""
    result = np.array(values, dtype=np.float64)
    return _butterfly(result, lambda low, high: (low, high - low))


def fourier(values: np.ndarray) -> np.ndarray:
    """Return the Fourier coefficients of a table: 2^-n sum over T of v(T) (-1)^|S and T|. Exact (Walsh-Hadamard)."""
    return _butterfly(np.array(values, dtype=np.float64), lambda low, high: ((low + high) / 2, (low - high) / 2))


def _butterfly(table: np.ndarray, step: Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, ...]]) -> np.ndarray:
    width = 1
    while width < len(table):
        view = table.reshape(-1, 2, width, *table.shape[1:])
        view[:, 0], view[:, 1] = step(view[:, 0].copy(), view[:, 1].copy())
        width *= 2
    return table


def sets_up_to(players: int, order: int, smallest: int = 1) -> np.ndarray:
    """Return all sets of `smallest` to `order` players, small ones first: [sets, players] booleans."""
    found = [members for size in range(smallest, order + 1) for members in combinations(range(players), size)]
    masks = np.zeros((len(found), players), dtype=bool)
    for row, members in enumerate(found):
        masks[row, list(members)] = True
    return masks


def share(index: Index, order: int, inner: int, outer: int) -> float:
    """Return the share that a set of `inner` players has in the dividend of a larger set of `outer`, by an index.

    SII (Grabisch & Roubens 1999), k-SII (Bord & von Luxburg 2023), STII (Sundararajan et al. 2020) and FSII (Tsai et
    al. 2023) up to `order`; BII is Banzhaf's; Moebius keeps the dividend of the set itself. With inner = 1, SII is
    the Shapley value and BII the Banzhaf value.
    """
    gap = outer - inner
    if index == "SII":
        return 1 / (gap + 1)
    if index == "BII":
        return 0.5**gap
    if index == "Moebius" or gap == 0:
        return float(gap == 0)
    if index == "k-SII":
        numbers = bernoulli(max(order - inner, 1))
        return float(sum(numbers[j] * comb(gap, j) / (gap - j + 1) for j in range(min(order - inner, gap) + 1)))
    if index == "STII":
        return float(1 / comb(outer, inner)) if inner == order else 0.0
    if outer <= order:
        return 0.0
    size = inner / (order + inner) * comb(order, inner) * comb(outer - 1, order)
    return float((-1) ** (order - inner) * size / comb(outer + order - 1, order + inner))


def interactions(sets: np.ndarray, amounts: np.ndarray, wanted: np.ndarray, index: Index, order: int) -> np.ndarray:
    """Return an interaction index of wanted sets in a sum of unanimity games.

    Args:
        sets: [sets, players] booleans.
        amounts: their dividends, [sets, targets].
        wanted: [wanted, players] booleans, none empty.
        index: which index.
        order: the largest size that k-SII, STII and FSII share the dividends among.

    Returns:
        [wanted, targets]. Exact; for k-SII, STII and FSII all sets up to `order` sum to v(all) - v(none).
    """
    outer, inner = sets.sum(1), wanted.sum(1)
    table = np.zeros((int(inner.max()) + 1, int(outer.max(initial=0)) + 1))
    for small in range(1, len(table)):
        for large in range(small, table.shape[1]):
            table[small, large] = share(index, order, small, large)
    contained = wanted.astype(np.int64) @ sets.T.astype(np.int64) == inner[:, None]
    result: np.ndarray = (contained * table[inner[:, None], outer[None]]) @ amounts
    return result
