"""RISE against the conditional mean, its tie to the linear model, and its error bars."""

import numpy as np
import pytest

import pellucid
from pellucid.core.errors import InputError
from pellucid.engine.coalitions import all_coalitions
from pellucid.methods.attribution.rise import rise
from tests import games, plain
from tests.linear import linear


@pytest.mark.parametrize("keep", [0.5, 0.8])
def test_exact_is_the_conditional_mean(keep: float) -> None:
    model = plain.tiny()
    table, masks = games.of_model(model, plain.IDS, 3)[:, 0], all_coalitions(6)
    chance = np.prod(np.where(masks, keep, 1 - keep), axis=1)
    expected = [np.average(table[masks[:, i]], weights=chance[masks[:, i]]) for i in range(6)]
    found = rise(pellucid.load(model), plain.IDS, target=plain.TARGET, replacement=3, keep=keep)
    np.testing.assert_allclose(found.scores, expected, atol=1e-9)


def test_sampled_values_are_unbiased_and_covered() -> None:
    weights = np.array([3.0, -1.0, 0.0, 2.0, 1.0, 0.5, -2.0, 1.0])

    def additive(texts: list[str]) -> list[float]:
        return [float(sum(weights[int(word[1])] for word in text.split() if word[0] == "w")) for text in texts]

    subject, prompt = pellucid.load(additive), " ".join(f"w{i}" for i in range(8))
    truth = weights.sum() / 2 + weights / 2
    runs = [rise(subject, prompt, samples=60, seed=seed) for seed in range(200)]
    means, errors = np.stack([r.scores for r in runs]), np.array([r.std_error for r in runs])
    assert (np.abs(means.mean(0) - truth) < 3.3 * means.std(0, ddof=1) / 200**0.5).all()
    assert 0.90 <= (np.abs(means - truth) <= 2.04 * errors).mean() <= 0.99


def test_on_a_linear_model_differences_are_half_the_weights() -> None:
    case = linear()
    found = rise(case.subject, case.ids, **case.asked, replacement=case.blank)
    np.testing.assert_allclose(found.scores, (case.weights + case.weights.sum()) / 2, atol=1e-5)


def test_a_chance_of_nothing_or_everything_is_refused() -> None:
    subject = pellucid.load(plain.tiny())
    for keep in (0.0, 1.0):
        with pytest.raises(InputError, match="between 0 and 1"):
            rise(subject, plain.IDS, target=plain.TARGET, keep=keep)
    with pytest.raises(InputError, match="fewer than twice"):
        rise(subject, plain.IDS, target=plain.TARGET, samples=3)
