"""Mass-mean probes against scikit-learn's linear discriminant and their closed form."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

import pellucid
from pellucid.engine.directions import activations
from pellucid.engine.mass_means import mass_mean_probe
from pellucid.methods.steering.mass_mean import mass_mean
from tests import plain

POSITIVE, NEGATIVE = [[i, 11 + i, 5] for i in range(12)], [[i, 11 + i, 77] for i in range(12)]


@pytest.fixture(scope="module")
def subject() -> pellucid.Subject:
    """Load a tiny random decoder once."""
    return pellucid.load(plain.tiny("gpt2"))


def test_the_probe_is_the_linear_discriminant() -> None:
    rng = np.random.default_rng(0)
    mixing = rng.standard_normal((6, 6))
    one, none = rng.standard_normal((80, 6)) @ mixing + 0.5, rng.standard_normal((80, 6)) @ mixing
    weights, bias = mass_mean_probe(one, none, 0.0)
    peer = LinearDiscriminantAnalysis(solver="lsqr").fit(np.concatenate([one, none]), np.repeat([1, 0], 80))
    np.testing.assert_allclose(weights, peer.coef_[0], rtol=1e-6)
    assert bias == pytest.approx(float(peer.intercept_[0]), rel=1e-6)
    tilted = np.abs(weights / np.linalg.norm(weights) - (one.mean(0) - none.mean(0)) / np.linalg.norm(weights))
    assert tilted.max() > 0.1


def test_direction_is_the_difference_and_probes_have_closed_form(subject: pellucid.Subject) -> None:
    found = mass_mean(subject, POSITIVE, NEGATIVE, test_share=0.0, shrinkage=0.1)
    values = activations(subject, [*POSITIVE, *NEGATIVE], "resid_post").values
    for layer in range(2):
        one, none = values[layer, :12], values[layer, 12:]
        theta = one.mean(0) - none.mean(0)
        np.testing.assert_allclose(found.tensors["directions"][layer], theta / np.linalg.norm(theta), atol=1e-9)
        spread = (np.cov(one.T, bias=True) + np.cov(none.T, bias=True)) / 2
        spread += 0.1 * np.trace(spread) / 32 * np.eye(32)
        np.testing.assert_allclose(found.tensors["probes"][layer], np.linalg.solve(spread, theta), rtol=1e-5)
