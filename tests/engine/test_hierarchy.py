"""Owen values against all orders that a hierarchy allows."""

from __future__ import annotations

from itertools import pairwise, permutations

import numpy as np
import pytest

from pellucid.engine.coalitions import exact_shapley
from pellucid.engine.hierarchy import Node, exact_weights, halves, nested, orders, size
from pellucid.engine.orders import estimate_over_orders
from tests import games

N = 6
TABLE = games.rough(N)
VALUE = games.lookup(TABLE)
SENTENCES = [0, 0, 1, 1, 1, 2]
MESSAGES = [0, 0, 1, 1, 1, 1]


def together(order: tuple[int, ...], groups: list[int]) -> bool:
    """Say whether the members of every group follow each other without a gap."""
    seen = [groups[player] for player in order]
    return sum(a != b for a, b in pairwise(seen)) == len(set(groups)) - 1


def over_allowed_orders(levels: list[list[int]]) -> np.ndarray:
    """The definition: the mean gain of each player over all orders in which groups stay together."""
    allowed = [o for o in permutations(range(N)) if all(together(o, groups) for groups in levels)]
    total = np.zeros((N, TABLE.shape[1]))
    for order in allowed:
        before = 0
        for player in order:
            total[player] += TABLE[before | 1 << player] - TABLE[before]
            before |= 1 << player
    return total / len(allowed)


@pytest.mark.parametrize("levels", [[SENTENCES], [MESSAGES, SENTENCES], []])
def test_exact_equals_all_allowed_orders(levels: list[list[int]]) -> None:
    tree = nested(range(N), levels)
    masks, weights = exact_weights(tree)
    expected = over_allowed_orders(levels) if levels else exact_shapley(TABLE, N)
    np.testing.assert_allclose(weights.T @ VALUE(masks), expected, atol=1e-12)
    assert len(masks) <= 2 * size(tree)


def test_a_sentence_gets_its_value_among_sentences() -> None:
    masks, weights = exact_weights(nested(range(N), [SENTENCES]))
    values = weights.T @ VALUE(masks)
    groups = np.array(SENTENCES)
    coarse = np.stack([VALUE(np.isin(groups, [g for g in range(3) if bits >> g & 1])[None])[0] for bits in range(8)])
    totals = np.stack([values[groups == g].sum(0) for g in range(3)])
    np.testing.assert_allclose(totals, exact_shapley(coarse, 3), atol=1e-12)


def test_halves_need_few_coalitions() -> None:
    tree = halves(range(32))
    masks, weights = exact_weights(tree)
    assert len(masks) <= 32 * 32 * 2
    slope = np.arange(32.0)
    np.testing.assert_allclose(weights.T @ (masks @ slope), slope, atol=1e-12)
    assert exact_weights(Node((0,)))[0].tolist() == [[True], [False]]


def test_sampled_orders_are_unbiased() -> None:
    tree = nested(range(N), [MESSAGES, SENTENCES])
    masks, weights = exact_weights(tree)
    truth = weights.T @ VALUE(masks)
    runs = [
        estimate_over_orders(N, VALUE, orders(tree, np.random.default_rng(seed)), orders_at_most=20)
        for seed in range(200)
    ]
    means, errors = np.stack([r.values for r in runs]), np.array([r.error for r in runs])
    assert (np.abs(means.mean(0) - truth) < 3.3 * means.std(0, ddof=1) / 200**0.5 + 1e-9).all()
    assert 0.90 <= (np.abs(means - truth) <= 2.26 * errors + 1e-9).mean() <= 0.99
