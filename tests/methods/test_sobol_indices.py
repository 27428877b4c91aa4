"""Total Sobol indices against their definition by conditional variances, and sampled."""

import numpy as np
import pytest

import pellucid
from pellucid.core.errors import InputError
from pellucid.engine.coalitions import all_coalitions
from pellucid.methods.attribution.sobol_indices import sobol_indices
from tests import games, plain
from tests.linear import linear

LONG = [11, 42, 7, 23, 64, 5, 9, 31, 77]


def definition(table: np.ndarray) -> np.ndarray:
    """E[Var(v | all but i)] / Var(v): the variance within pairs of coalitions that differ in i alone."""
    players = int(np.log2(len(table)))
    masks = all_coalitions(players)
    within = []
    for i in range(players):
        without = np.flatnonzero(~masks[:, i])
        pairs = np.stack([table[without, 0], table[without | 1 << i, 0]])
        within.append(pairs.var(0).mean())
    return np.array(within) / table[:, 0].var()


def test_exact_equals_the_definition() -> None:
    model = plain.tiny()
    found = sobol_indices(pellucid.load(model), plain.IDS, target=plain.TARGET, replacement=3)
    np.testing.assert_allclose(found.scores, definition(games.of_model(model, plain.IDS, 3)), atol=1e-9)
    assert found.provenance.forwards == 64


def test_two_words_that_count_only_together() -> None:
    def both(texts: list[str]) -> list[float]:
        return [float("not" in text and "bad" in text) for text in texts]

    found = sobol_indices(pellucid.load(both), "not a bad film")
    np.testing.assert_allclose(found.scores, [2 / 3, 0, 2 / 3, 0], atol=1e-12)
    assert found.evidence[0].values["sum"] == pytest.approx(4 / 3)


def test_sampled_indices_lie_within_their_errors() -> None:
    model = plain.tiny("llama")
    truth = definition(games.of_model(model, LONG, 3))
    found = sobol_indices(pellucid.load(model), LONG, target=plain.TARGET, replacement=3, samples=400)
    assert found.std_error is not None
    assert (np.abs(found.scores - truth) < 4.5 * found.std_error).all()


def test_sampled_indices_are_right_on_average_and_covered() -> None:
    weights = np.array([3.0, -1.0, 0.0, 2.0, 1.0, 0.5, -2.0, 1.0])

    def film(texts: list[str]) -> list[float]:
        return [
            sum(weights[i] for i in range(8) if f"w{i}" in text) + 2.0 * ("w1" in text and "w4" in text)
            for text in texts
        ]

    subject, prompt = pellucid.load(film), " ".join(f"w{i}" for i in range(8))
    truth = sobol_indices(subject, prompt, samples=256).scores
    runs = [sobol_indices(subject, prompt, samples=250, seed=seed) for seed in range(100)]
    means, errors = np.stack([r.scores for r in runs]), np.array([r.std_error for r in runs])
    np.testing.assert_allclose(means.mean(0), truth, atol=0.05)
    assert 0.85 <= (np.abs(means - truth) <= 2.05 * errors + 1e-9).mean() <= 0.99


def test_on_a_linear_model_they_are_squared_weights() -> None:
    case = linear()
    found = sobol_indices(case.subject, case.ids, **case.asked, replacement=case.blank)
    np.testing.assert_allclose(found.scores, case.weights**2 / (case.weights**2).sum(), atol=1e-5)


def test_too_few_samples_are_refused() -> None:
    with pytest.raises(InputError, match="20 or more"):
        sobol_indices(pellucid.load(plain.tiny()), LONG, target=plain.TARGET, samples=19)
