"""Interactions of pairs against their definitions on a model, a team that must be whole, and sampled."""

from itertools import combinations
from math import comb, factorial
from typing import Any

import numpy as np
import pytest

import pellucid
from pellucid import Target
from pellucid.engine.games import dividends, interactions, sets_up_to
from pellucid.methods.attribution.shapley_interactions import shapley_interactions
from tests import games, plain
from tests.linear import linear

LONG = [11, 42, 7, 23, 64, 5, 9, 31, 77]


@pytest.mark.parametrize("index", ["k-SII", "STII"])
def test_pairs_are_means_of_derivatives(index: Any) -> None:
    model = plain.tiny()
    table = games.of_model(model, plain.IDS, 3)
    found = shapley_interactions(pellucid.load(model), plain.IDS, target=plain.TARGET, replacement=3, index=index)

    def weight(size: int) -> float:
        return factorial(size) * factorial(4 - size) / factorial(5) if index == "k-SII" else 2 / 6 / comb(5, size)

    for i, j in combinations(range(6), 2):
        expected = games.mean_derivative(table, (i, j), weight)[0]
        assert found.scores[i, j] == pytest.approx(expected, abs=1e-10)
        assert found.scores[j, i] == found.scores[i, j]
    if index == "STII":
        np.testing.assert_allclose(np.diag(found.scores), [table[1 << i, 0] - table[0, 0] for i in range(6)], atol=1e-9)
    assert found.scores[np.triu_indices(6)].sum() == pytest.approx(float(table[-1, 0] - table[0, 0]), abs=1e-9)
    assert found.provenance.forwards == 64


@pytest.mark.parametrize("index", ["k-SII", "STII", "FSII"])
def test_a_pair_that_must_be_whole_has_it_all(index: Any) -> None:
    def both(texts: list[str]) -> list[float]:
        return [float("not" in text and "bad" in text) for text in texts]

    found = shapley_interactions(pellucid.load(both), "not a bad film", index=index)
    expected = np.zeros((4, 4))
    expected[0, 2] = expected[2, 0] = 1.0
    np.testing.assert_allclose(found.scores, expected, atol=1e-9)


@pytest.mark.parametrize("index", ["k-SII", "STII", "FSII"])
def test_sampled_values_lie_within_their_errors(index: Any) -> None:
    model = plain.tiny("llama")
    truth = interactions(
        sets_up_to(9, 9), dividends(games.of_model(model, LONG, 3))[_rows()], sets_up_to(9, 2), index, 2
    )
    found = shapley_interactions(
        pellucid.load(model), LONG, target=plain.TARGET, replacement=3, index=index, samples=300, seed=3
    )
    assert found.std_error is not None
    places = [np.flatnonzero(s)[[0, -1]] for s in sets_up_to(9, 2)]
    values = np.array([found.scores[i, j] for i, j in places])
    errors = np.array([found.std_error[i, j] for i, j in places])
    assert (np.abs(values - truth[:, 0]) < 5 * errors + 1e-7).all()
    assert found.evidence[0].values["residual"] < 1e-7


def _rows() -> np.ndarray:
    return sets_up_to(9, 9) @ (1 << np.arange(9))


def test_a_linear_model_has_no_interactions() -> None:
    case = linear()
    found = shapley_interactions(case.subject, case.ids, **case.asked, replacement=case.blank)
    np.testing.assert_allclose(found.scores, np.diag(case.weights), atol=1e-5)


def test_each_target_has_its_own_matrix() -> None:
    target = Target.continuation([17, 20], each=True)
    found = shapley_interactions(pellucid.load(plain.tiny()), plain.IDS, target=target, replacement=3)
    assert found.axes == ("unit", "other_unit", "target")
    assert found.scores.shape == (6, 6, 2)
