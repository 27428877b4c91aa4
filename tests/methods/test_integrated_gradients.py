"""Integrated gradients: completeness, a plain loop, quadratures, baselines and Captum."""

import numpy as np
import pytest
import torch

import pellucid
from pellucid.core.errors import InputError
from pellucid.methods.attribution.gradient_x_input import gradient_x_input
from pellucid.methods.attribution.integrated_gradients import integrated_gradients
from tests import plain


def by_hand(model: torch.nn.Module, baseline: torch.Tensor, steps: int) -> np.ndarray:
    """The paper's sum with the midpoint rule."""
    end = plain.embeddings(model, plain.IDS)
    total = torch.zeros_like(end)
    for step in range(steps):
        point = (baseline + (step + 0.5) / steps * (end - baseline)).requires_grad_()
        plain.from_embeddings(model, point)[plain.TARGET].backward()
        total += point.grad / steps
    return ((end - baseline) * total).sum(-1).detach().numpy()


def test_equals_the_plain_loop() -> None:
    model = plain.tiny("llama")
    start = torch.zeros(6, 32, dtype=torch.float64)
    found = integrated_gradients(
        pellucid.load(model), plain.IDS, target=plain.TARGET, steps=20, quadrature="riemann_middle"
    )
    np.testing.assert_allclose(found.scores, by_hand(model, start, 20), atol=1e-10)


@pytest.mark.parametrize(
    "quadrature", ["gauss_legendre", "trapezoid", "riemann_left", "riemann_right", "riemann_middle"]
)
def test_every_quadrature_converges_to_completeness(quadrature: str) -> None:
    model = plain.tiny()
    steps = 24 if quadrature == "gauss_legendre" else 400
    found = integrated_gradients(
        pellucid.load(model), plain.IDS, target=plain.TARGET, baseline=3, steps=steps, quadrature=quadrature
    )
    difference = plain.logits(model, plain.IDS)[plain.TARGET] - plain.logits(model, [3] * 6)[plain.TARGET]
    tolerance = 0.02 if quadrature in ("riemann_left", "riemann_right") else 1e-4
    assert abs(found.scores.sum() - float(difference)) < tolerance * abs(float(difference))
    residual = found.evidence[0].values["residual"]
    assert residual == pytest.approx(abs(found.scores.sum() - float(difference)), abs=1e-9)


def test_the_baseline_is_the_same_however_it_is_given() -> None:
    model = plain.tiny()
    subject = pellucid.load(model)
    token = integrated_gradients(subject, plain.IDS, target=plain.TARGET, baseline=3)
    vector = integrated_gradients(subject, plain.IDS, target=plain.TARGET, baseline=plain.embeddings(model, [3])[0])
    tensor = integrated_gradients(subject, plain.IDS, target=plain.TARGET, baseline=plain.embeddings(model, [3] * 6))
    np.testing.assert_allclose(token.scores, vector.scores, atol=1e-12)
    np.testing.assert_allclose(token.scores, tensor.scores, atol=1e-12)
    with pytest.raises(InputError, match="baseline has the shape"):
        integrated_gradients(subject, plain.IDS, target=plain.TARGET, baseline=torch.zeros(3, 5))


def test_one_step_at_the_end_is_gradient_x_input() -> None:
    subject = pellucid.load(plain.tiny())
    one = integrated_gradients(subject, plain.IDS, target=plain.TARGET, steps=1, quadrature="riemann_right")
    plainly = gradient_x_input(subject, plain.IDS, target=plain.TARGET)
    np.testing.assert_allclose(one.scores, plainly.scores, atol=1e-12)


def test_units_that_stay_out_do_not_move() -> None:
    model = plain.tiny()
    found = integrated_gradients(
        pellucid.load(model), plain.IDS, target=plain.TARGET, baseline=3, steps=40, unit=[(1, 2), (4, 6)]
    )
    kept = [11, 3, 7, 23, 3, 3]
    difference = plain.logits(model, plain.IDS)[plain.TARGET] - plain.logits(model, kept)[plain.TARGET]
    assert found.scores.sum() == pytest.approx(float(difference), abs=1e-6)


@pytest.mark.peers
def test_agrees_with_captum() -> None:
    captum = pytest.importorskip("captum.attr")
    model = plain.tiny("llama").float()
    ids = torch.tensor([plain.IDS])
    peer = captum.LayerIntegratedGradients(lambda x: model(input_ids=x).logits[:, -1], model.model.embed_tokens)
    theirs = peer.attribute(
        ids, baselines=torch.zeros_like(ids) + 3, target=plain.TARGET, n_steps=32, method="gausslegendre"
    )
    ours = integrated_gradients(pellucid.load(model), plain.IDS, target=plain.TARGET, baseline=3, steps=32)
    np.testing.assert_allclose(ours.scores, theirs.sum(-1)[0].detach().numpy(), rtol=1e-4, atol=1e-6)
