"""Probes fitted together against scikit-learn, one by one."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from pellucid.core.errors import InputError
from pellucid.engine.batched_probes import _Problem, logistic_probes


@pytest.mark.parametrize("strength", [0.1, 1.0, 100.0])
def test_losses_and_weights_are_those_of_scikit_learn(strength: float) -> None:
    rng = np.random.default_rng(0)
    values = rng.standard_normal((7, 60, 8)) * rng.uniform(0.1, 5, (7, 1, 1)) + 3
    labels = (values[0, :, 0] + rng.standard_normal(60) > 3).astype(int)
    found = logistic_probes(torch.as_tensor(values), torch.as_tensor(labels), strength=strength)
    for i, x in enumerate(values):
        peer = LogisticRegression(C=strength, tol=1e-10, max_iter=10_000).fit(x, labels)
        logits = x @ peer.coef_[0] + peer.intercept_[0]
        loss = strength * (np.logaddexp(0, logits) - labels * logits).sum() + 0.5 * (peer.coef_**2).sum()
        assert float(found.losses[i]) <= loss + 1e-4
        assert float(found.losses[i]) == pytest.approx(loss, abs=1e-4)
        np.testing.assert_allclose(found.weights[i], peer.coef_[0], atol=2e-3 * max(1, np.abs(peer.coef_).max()))
        mine = found.logits(torch.as_tensor(values))[i].numpy()
        np.testing.assert_allclose(mine, logits, atol=5e-3 * max(1, np.abs(logits).max()))


def test_separable_data_and_more_dimensions_than_items_converge() -> None:
    rng = np.random.default_rng(1)
    values = rng.standard_normal((3, 10, 40))
    labels = np.repeat([0, 1], 5)
    found = logistic_probes(torch.as_tensor(values), torch.as_tensor(labels))
    assert found.steps < 30
    logits = found.logits(torch.as_tensor(values))
    assert ((logits > 0) == (torch.as_tensor(labels) > 0)).all()
    gradient = values[0].T @ (1 / (1 + np.exp(-logits[0].numpy())) - labels) + found.weights[0].numpy()
    assert np.abs(gradient).max() < 1e-6


def test_one_class_is_refused() -> None:
    with pytest.raises(InputError, match="labels of two classes"):
        logistic_probes(torch.zeros(1, 4, 2), torch.ones(4))


def test_features_in_float32_end_at_the_same_loss() -> None:
    rng = np.random.default_rng(2)
    values = (rng.standard_normal((5, 80, 6)) + 20).astype(np.float32)
    labels = (values[0, :, 0] > 20).astype(int)
    found = logistic_probes(torch.as_tensor(values), torch.as_tensor(labels))
    for i, x in enumerate(values.astype(np.float64)):
        peer = LogisticRegression(tol=1e-10, max_iter=10_000).fit(x, labels)
        logits = x @ peer.coef_[0] + peer.intercept_[0]
        loss = (np.logaddexp(0, logits) - labels * logits).sum() + 0.5 * (peer.coef_**2).sum()
        assert float(found.losses[i]) == pytest.approx(loss, abs=1e-4)


def test_a_curvature_that_rounding_made_indefinite_is_summed_in_float64() -> None:
    rng = np.random.default_rng(3)
    line = rng.standard_normal((1, 50, 1)) * 1e6  # in float32 a rank-one sum of this size loses the penalty's 1
    values = torch.as_tensor(np.repeat(line, 4, axis=2).astype(np.float32))
    labels = torch.as_tensor((line[0, :, 0] > 0).astype(int))
    y, w = labels.double(), torch.zeros(1, 5, dtype=torch.float64)
    problem = _Problem(values, y, 1.0)
    _, bad = torch.linalg.cholesky_ex((problem.x * 0.25 @ problem.x.mT).double() + torch.diag(problem.ridge))
    assert bool(bad.any()), "otherwise this test shows nothing"
    factor = problem.curvature(torch.sigmoid(problem.logits(w)))[0]
    wide = problem.x[0].double()
    hessian = (wide * 0.25) @ wide.T + torch.diag(problem.ridge)
    assert float((factor @ factor.T - hessian).abs().max() / hessian.abs().max()) < 1e-9
    assert bool(torch.isfinite(logistic_probes(values, labels).losses).all())
