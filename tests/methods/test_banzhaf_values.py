"""Banzhaf values against their definition, on unanimity, on a linear model and sampled."""

import numpy as np

import pellucid
from pellucid.methods.attribution.banzhaf_values import banzhaf_values
from tests import games, plain
from tests.linear import linear

LONG = [11, 42, 7, 23, 64, 5, 9, 31, 77]


def definition(table: np.ndarray) -> np.ndarray:
    players = int(np.log2(len(table)))
    return np.array([games.mean_derivative(table, (i,), lambda _: 0.5 ** (players - 1))[0] for i in range(players)])


def test_exact_equals_the_definition() -> None:
    model = plain.tiny()
    truth = definition(games.of_model(model, plain.IDS, 3))
    found = banzhaf_values(pellucid.load(model), plain.IDS, target=plain.TARGET, replacement=3, samples=64)
    np.testing.assert_allclose(found.scores, truth, atol=1e-9)
    assert found.provenance.forwards == 64


def test_a_team_that_must_be_whole() -> None:
    """v = 1 only with all three words: each is worth 2^-2."""

    def whole(texts: list[str]) -> list[float]:
        return [float(all(word in text for word in ("not", "bad", "film"))) for text in texts]

    found = banzhaf_values(pellucid.load(whole), "not a bad film", samples=16)
    np.testing.assert_allclose(found.scores, [0.25, 0, 0.25, 0.25], atol=1e-12)


def test_sampled_values_lie_within_their_errors() -> None:
    model = plain.tiny("llama")
    truth = definition(games.of_model(model, LONG, 3))
    found = banzhaf_values(pellucid.load(model), LONG, target=plain.TARGET, replacement=3, samples=150)
    assert found.std_error is not None
    assert (np.abs(found.scores - truth) < 4.5 * found.std_error + 1e-9).all()
    assert np.corrcoef(found.scores, truth)[0, 1] > 0.95


def test_a_linear_model_gives_its_weights() -> None:
    case = linear()
    found = banzhaf_values(case.subject, case.ids, **case.asked, replacement=case.blank, samples=60)
    np.testing.assert_allclose(found.scores, case.weights, atol=1e-4)
