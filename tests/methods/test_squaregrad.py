"""SquareGrad: without noise the squared gradient norm; with noise, the mean of squares and its error."""

import numpy as np
import pytest
import torch

import pellucid
from pellucid.methods.attribution.gradient_norm import gradient_norm
from pellucid.methods.attribution.squaregrad import squaregrad
from tests import plain


def test_without_noise_it_is_the_squared_gradient_norm() -> None:
    subject = pellucid.load(plain.tiny())
    found = squaregrad(subject, plain.IDS, target=plain.TARGET, noise=0.0, samples=3)
    norm = gradient_norm(subject, plain.IDS, target=plain.TARGET)
    np.testing.assert_allclose(found.scores, norm.scores**2, rtol=1e-9)
    np.testing.assert_allclose(found.std_error, 0, atol=1e-12)


@pytest.mark.parametrize("of", ["gradient", "gradient_x_input"])
def test_is_the_mean_of_squares_over_the_same_noise(of: str) -> None:
    model = plain.tiny("llama")
    end = plain.embeddings(model, plain.IDS)
    noise = torch.randn((5, *end.shape), generator=torch.Generator().manual_seed(7)).double()
    squares = []
    for draw in noise:
        point = (end + 0.1 * (end.max() - end.min()) * draw).requires_grad_()
        plain.from_embeddings(model, point)[plain.TARGET].backward()
        squares.append((point.grad * point if of == "gradient_x_input" else point.grad).square().sum(-1).detach())
    squares = torch.stack(squares).numpy()
    found = squaregrad(pellucid.load(model), plain.IDS, target=plain.TARGET, samples=5, of=of, seed=7)
    np.testing.assert_allclose(found.scores, squares.mean(0), rtol=1e-6)
    np.testing.assert_allclose(found.std_error, squares.std(0, ddof=1) / 5**0.5, rtol=1e-6)
