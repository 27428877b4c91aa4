"""Leverage-score Shapley values: enumeration, honest errors, a linear model."""

import numpy as np

import pellucid
from pellucid.engine.coalitions import exact_shapley
from pellucid.methods.attribution.leverage_shapley import leverage_shapley
from tests import games, plain
from tests.linear import linear

LONG = [11, 42, 7, 23, 64, 5, 9, 31, 77]


def test_exact_where_all_coalitions_fit() -> None:
    model = plain.tiny()
    truth = exact_shapley(games.of_model(model, plain.IDS, 3), 6)[:, 0]
    found = leverage_shapley(pellucid.load(model), plain.IDS, target=plain.TARGET, replacement=3)
    np.testing.assert_allclose(found.scores, truth, atol=1e-9)
    assert found.std_error is None
    assert found.provenance.forwards == 64


def test_sampled_values_lie_within_their_errors_and_add_up() -> None:
    model = plain.tiny("llama")
    truth = exact_shapley(games.of_model(model, LONG, 3), 9)[:, 0]
    found = leverage_shapley(pellucid.load(model), LONG, target=plain.TARGET, replacement=3, samples=150)
    assert found.std_error is not None
    assert (np.abs(found.scores - truth) < 4.5 * found.std_error + 1e-9).all()
    assert np.corrcoef(found.scores, truth)[0, 1] > 0.95
    assert found.evidence[0].values["residual"] < 1e-9


def test_a_linear_model_gives_its_weights() -> None:
    case = linear()
    found = leverage_shapley(case.subject, case.ids, **case.asked, replacement=case.blank, samples=60)
    np.testing.assert_allclose(found.scores, case.weights, atol=1e-4)
