"""Fourier series of trees, and the way back to dividends."""

from __future__ import annotations

import numpy as np
from sklearn.tree import DecisionTreeRegressor

from pellucid.engine.coalitions import all_coalitions
from pellucid.engine.games import dividends
from pellucid.engine.tree_surrogates import boosted, characters, dividends_of, largest, of_tree
from tests import games

N = 5
MASKS = all_coalitions(N)
TABLE = games.rough(N)


def test_the_series_of_a_tree_is_the_tree() -> None:
    tree = DecisionTreeRegressor(random_state=0).fit(MASKS.astype(float), TABLE[:, 0])
    series = of_tree(tree.tree_)
    sets = list(series)
    np.testing.assert_allclose(characters(MASKS, sets) @ [series[s] for s in sets], TABLE[:, 0], atol=1e-12)


def test_dividends_of_a_series_are_those_of_the_game() -> None:
    tree = DecisionTreeRegressor(random_state=0).fit(MASKS.astype(float), TABLE[:, 0])
    series = of_tree(tree.tree_)
    sets, amounts = dividends_of(list(series), np.array(list(series.values()))[:, None], N)
    expected = dividends(TABLE)
    for members, amount in zip(sets, amounts[:, 0], strict=True):
        np.testing.assert_allclose(amount, expected[members @ (1 << np.arange(N)), 0], atol=1e-10)
    assert len(sets) == 2**N - 1


def test_planted_interactions_are_found_among_many_players() -> None:
    """Forty players, a game of six characters with parts of their own: boosting on 400 coalitions finds just these."""
    rng = np.random.default_rng(0)
    masks = rng.random((400, 40)) < 0.5
    planted = [frozenset(members) for members in ({3}, {7}, {7, 21}, {1}, {1, 12}, {1, 12, 30})]
    values = characters(masks, planted) @ [2.0, 1.5, 1.5, 2.0, 2.0, 2.0] + 0.05 * rng.normal(size=400)
    assert set(largest(boosted(masks, values, 4, 150, 0), 6)) == set(planted)
