"""SmoothGrad: no noise is the plain attribution; with noise, the mean of noisy gradients."""

import numpy as np
import pytest
import torch

import pellucid
from pellucid.methods.attribution.gradient_x_input import gradient_x_input
from pellucid.methods.attribution.smoothgrad import smoothgrad
from tests import plain


def test_without_noise_it_is_gradient_x_input() -> None:
    subject = pellucid.load(plain.tiny())
    found = smoothgrad(subject, plain.IDS, target=plain.TARGET, noise=0.0, samples=3)
    np.testing.assert_allclose(
        found.scores, gradient_x_input(subject, plain.IDS, target=plain.TARGET).scores, atol=1e-12
    )
    np.testing.assert_allclose(found.std_error, 0, atol=1e-12)


@pytest.mark.parametrize("of", ["gradient", "gradient_x_input"])
def test_is_the_mean_over_the_same_noise(of: str) -> None:
    model = plain.tiny("llama")
    end = plain.embeddings(model, plain.IDS)
    noise = torch.randn((5, *end.shape), generator=torch.Generator().manual_seed(7)).double()
    draws = []
    for draw in noise:
        point = (end + 0.1 * (end.max() - end.min()) * draw).requires_grad_()
        plain.from_embeddings(model, point)[plain.TARGET].backward()
        draws.append((point.grad * point if of == "gradient_x_input" else point.grad).sum(-1).detach().numpy())
    found = smoothgrad(pellucid.load(model), plain.IDS, target=plain.TARGET, samples=5, of=of, seed=7)
    np.testing.assert_allclose(found.scores, np.mean(draws, 0), atol=1e-9)
    np.testing.assert_allclose(found.std_error, np.std(draws, 0, ddof=1) / 5**0.5, atol=1e-9)


def test_noise_stays_on_the_units() -> None:
    """The last token is no unit, so a model that reads only the last token's embedding is not shaken."""
    model = plain.tiny()
    for block in model.transformer.h:
        for part in (block.attn.c_proj, block.mlp.c_proj):
            part.weight.data.zero_()
            part.bias.data.zero_()
    subject = pellucid.models.load.subject_of(model, None, name="last", proved=False)
    found = smoothgrad(subject, plain.IDS, target=plain.TARGET, unit=[(0, 5)], noise=0.5, samples=4)
    np.testing.assert_allclose(found.scores, 0, atol=1e-12)
