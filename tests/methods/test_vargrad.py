"""VarGrad: the plain variance over the same noise; and SquareGrad = mean squared + variance."""

import numpy as np
import pytest
import torch

import pellucid
from pellucid.core.errors import InputError
from pellucid.methods.attribution.squaregrad import squaregrad
from pellucid.methods.attribution.vargrad import vargrad
from tests import plain


def draws(model: torch.nn.Module, of: str, seed: int, count: int = 5) -> torch.Tensor:
    """Gradients [draws, positions, dimension] at noisy embeddings."""
    end = plain.embeddings(model, plain.IDS)
    noise = torch.randn((count, *end.shape), generator=torch.Generator().manual_seed(seed)).double()
    found = []
    for draw in noise:
        point = (end + 0.1 * (end.max() - end.min()) * draw).requires_grad_()
        plain.from_embeddings(model, point)[plain.TARGET].backward()
        assert point.grad is not None
        found.append((point.grad * point if of == "gradient_x_input" else point.grad).detach())
    return torch.stack(found)


@pytest.mark.parametrize("of", ["gradient", "gradient_x_input"])
def test_is_the_variance_over_the_same_noise(of: str) -> None:
    model = plain.tiny("llama")
    expected = draws(model, of, 7).var(0).sum(-1)
    found = vargrad(pellucid.load(model), plain.IDS, target=plain.TARGET, samples=5, of=of, seed=7)
    np.testing.assert_allclose(found.scores, expected.numpy(), rtol=1e-6)


def test_squared_mean_plus_variance_is_squaregrad() -> None:
    model = plain.tiny()
    subject = pellucid.load(model)
    gradients = draws(model, "gradient", 3)
    biased = vargrad(subject, plain.IDS, target=plain.TARGET, samples=5, seed=3).scores * 4 / 5
    squared = squaregrad(subject, plain.IDS, target=plain.TARGET, samples=5, seed=3).scores
    np.testing.assert_allclose(biased + gradients.mean(0).square().sum(-1).numpy(), squared, rtol=1e-9)


def test_one_sample_has_no_variance() -> None:
    with pytest.raises(InputError, match="samples"):
        vargrad(pellucid.load(plain.tiny()), plain.IDS, target=plain.TARGET, samples=1)
