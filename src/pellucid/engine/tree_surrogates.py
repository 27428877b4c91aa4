"""Sparse Fourier representations of games: what boosted trees hold, which coefficients matter, and their dividends.

A set of players is a frozenset; its character is the product of (1 - 2 x_i), +1 where i is absent. A Fourier series
gives each set a coefficient.
"""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np
from sklearn.ensemble import GradientBoostingRegressor

Series = dict[frozenset[int], float]


def boosted(masks: np.ndarray, values: np.ndarray, depth: int, trees: int, seed: int) -> Series:
    """Fit boosted trees to one target of a game and return their Fourier series, which is exactly theirs.

    Args:
        masks: coalitions, [rows, players].
        values: [rows].
        depth: of each tree, and so the size of the largest interaction.
        trees: how many.
        seed: of the rows and splits that each tree sees.
    """
    model = GradientBoostingRegressor(
        n_estimators=trees, max_depth=depth, learning_rate=0.1, subsample=0.8, random_state=seed
    )
    model.fit(masks.astype(np.float32), values)
    first: Any = model.init_  # predicts the mean
    total: Series = {frozenset(): float(np.ravel(first.constant_)[0])}
    for tree in model.estimators_[:, 0]:
        for members, amount in of_tree(tree.tree_).items():
            total[members] = total.get(members, 0.0) + model.learning_rate * amount
    return total


def of_tree(tree: Any, node: int = 0) -> Series:
    """Return the Fourier series of a decision tree over players: (left + right) / 2 + character (left - right) / 2."""
    if tree.children_left[node] < 0:
        return {frozenset(): float(tree.value[node].ravel()[0])}
    left, right = (of_tree(tree, child) for child in (int(tree.children_left[node]), int(tree.children_right[node])))
    feature, result = int(tree.feature[node]), Series()
    for members in {**left, **right}:
        absent, present = left.get(members, 0.0), right.get(members, 0.0)
        for key, amount in ((members, (absent + present) / 2), (members ^ {feature}, (absent - present) / 2)):
            result[key] = result.get(key, 0.0) + amount
    return result


def largest(series: Series, count: int) -> list[frozenset[int]]:
    """Return the sets with the largest coefficients, the empty set aside; ties in the order of the players."""
    sets = [members for members, amount in series.items() if members and amount]
    return sorted(sets, key=lambda members: (-abs(series[members]), len(members), sorted(members)))[:count]


def characters(masks: np.ndarray, sets: list[frozenset[int]]) -> np.ndarray:
    """Return the characters of sets at coalitions: [rows, sets] of +1 and -1."""
    result = np.ones((len(masks), len(sets)))
    for column, members in enumerate(sets):
        result[:, column] -= 2.0 * (masks[:, sorted(members)].sum(1) % 2)
    return result


def dividends_of(sets: list[frozenset[int]], amounts: np.ndarray, players: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the dividends of a game with Fourier coefficients `amounts` [sets, targets].

    Each character is a sum over its subsets R of (-2)^|R| times the unanimity game of R.

    Returns:
        sets [found, players] booleans, none empty, and their dividends [found, targets]. Exact.
    """
    found: dict[tuple[int, ...], np.ndarray] = {}
    for members, amount in zip(sets, amounts, strict=True):
        for size in range(1, len(members) + 1):
            for part in combinations(sorted(members), size):
                found[part] = found.get(part, 0.0) + (-2.0) ** size * amount
    masks = np.zeros((len(found), players), dtype=bool)
    for row, part in enumerate(found):
        masks[row, list(part)] = True
    return masks, np.stack(list(found.values())) if found else np.zeros((0, amounts.shape[1]))
