"""KernelSHAP against enumeration, on a linear model, per generated token, and against captum."""

from typing import Any

import numpy as np
import pytest
import torch

import pellucid
from pellucid import Target
from pellucid.core.errors import InputError
from pellucid.engine.coalitions import exact_shapley
from pellucid.methods.attribution.kernel_shap import kernel_shap
from tests import games, plain
from tests.linear import linear

LONG = [11, 42, 7, 23, 64, 5, 9, 31, 77, 50]


@pytest.mark.parametrize("estimator", ["unbiased", "regression"])
def test_exact_where_all_coalitions_fit(estimator: Any) -> None:
    model = plain.tiny()
    truth = exact_shapley(games.of_model(model, plain.IDS, 3), 6)[:, 0]
    found = kernel_shap(
        pellucid.load(model), plain.IDS, target=plain.TARGET, replacement=3, samples=64, estimator=estimator
    )
    np.testing.assert_allclose(found.scores, truth, atol=1e-9)
    assert found.std_error is None
    assert found.provenance.forwards == 64


@pytest.mark.parametrize("estimator", ["unbiased", "regression"])
def test_sampled_values_lie_within_their_errors(estimator: Any) -> None:
    model = plain.tiny("llama")
    truth = exact_shapley(games.of_model(model, LONG[:9], 3), 9)[:, 0]
    found = kernel_shap(
        pellucid.load(model), LONG[:9], target=plain.TARGET, replacement=3, samples=150, estimator=estimator, seed=4
    )
    assert found.std_error is not None
    assert (np.abs(found.scores - truth) < 4.5 * found.std_error + 1e-9).all()
    assert found.std_error.max() < np.abs(truth).max()
    assert found.evidence[0].values["residual"] < 1e-9
    assert found.provenance.forwards <= 150


@pytest.mark.parametrize("estimator", ["unbiased", "regression"])
def test_a_linear_model_gives_its_weights(estimator: Any) -> None:
    case = linear()
    found = kernel_shap(case.subject, case.ids, **case.asked, replacement=case.blank, samples=60, estimator=estimator)
    np.testing.assert_allclose(found.scores, case.weights, atol=1e-4)


def test_each_generated_token_has_its_own_column_and_residual() -> None:
    subject = pellucid.load(plain.tiny())
    each = kernel_shap(subject, LONG, target=Target.continuation([17, 20, 3], each=True), replacement=3, samples=100)
    assert each.axes == ("unit", "target")
    assert len(each.evidence[0].curves["residual"]) == 3
    assert max(each.evidence[0].curves["residual"]) < 1e-9
    summed = kernel_shap(subject, LONG, target=Target.continuation([17, 20, 3]), replacement=3, samples=1024)
    exact = kernel_shap(subject, LONG, target=Target.continuation([17, 20, 3], each=True), replacement=3, samples=1024)
    np.testing.assert_allclose(exact.scores.sum(1), summed.scores, atol=1e-9)


def test_precision_saves_forwards() -> None:
    subject = pellucid.load(plain.tiny())
    rough = kernel_shap(subject, LONG, target=plain.TARGET, replacement=3, samples=900, precision=0.5)
    full = kernel_shap(subject, LONG, target=plain.TARGET, replacement=3, samples=900)
    assert rough.provenance.forwards < full.provenance.forwards


def test_too_few_samples_are_refused() -> None:
    with pytest.raises(InputError, match="9 samples"):
        kernel_shap(pellucid.load(plain.tiny()), LONG, target=plain.TARGET, samples=9)


@pytest.mark.peers
def test_agrees_with_captum_within_sampling_error() -> None:
    captum = pytest.importorskip("captum.attr")
    model = plain.tiny("llama").float()
    peer = captum.KernelShap(lambda x: model(input_ids=x).logits[:, -1])
    runs = []
    for seed in range(4):
        torch.manual_seed(seed)
        theirs = peer.attribute(
            torch.tensor([plain.IDS]), baselines=3, target=plain.TARGET, n_samples=300, perturbations_per_eval=50
        )
        runs.append(theirs[0].detach().numpy())
    ours = kernel_shap(pellucid.load(model), plain.IDS, target=plain.TARGET, replacement=3, samples=64)
    error = np.std(runs, axis=0, ddof=1) / 2
    assert (np.abs(np.mean(runs, 0) - ours.scores) < 5 * error + 1e-3).all()
