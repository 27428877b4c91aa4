"""Stratified Shapley values on a model: within their errors, adding up, stopping."""

import numpy as np

import pellucid
from pellucid.engine.coalitions import exact_shapley
from pellucid.methods.attribution.stratified_shapley import stratified_shapley
from tests import games, plain
from tests.linear import linear


def test_values_lie_within_their_errors_and_add_up() -> None:
    model = plain.tiny("llama")
    truth = exact_shapley(games.of_model(model, plain.IDS, 3), 6)[:, 0]
    found = stratified_shapley(
        pellucid.load(model), plain.IDS, target=plain.TARGET, replacement=3, permutations=60, strata=6, seed=2
    )
    assert found.std_error is not None
    assert (np.abs(found.scores - truth) < 4.5 * found.std_error + 1e-9).all()
    assert np.corrcoef(found.scores, truth)[0, 1] > 0.95
    assert found.evidence[0].values["residual"] < 1e-9


def test_a_linear_model_gives_its_weights() -> None:
    case = linear()
    found = stratified_shapley(case.subject, case.ids, **case.asked, replacement=case.blank)
    np.testing.assert_allclose(found.scores, case.weights, atol=1e-5)


def test_precision_saves_forwards() -> None:
    case = linear()
    more = {**case.asked, "replacement": case.blank, "permutations": 400, "precision": 0.05}
    assert "32 orders" in stratified_shapley(case.subject, case.ids, **more).title
