"""Deep Taylor against expansions at roots that are searched for, and its two promises: conservation and one sign."""

import numpy as np
import pytest
import torch

import pellucid
from pellucid.engine.interception import watched
from pellucid.engine.rules import Backward, Rules
from pellucid.methods.relevance.deep_taylor import deep_taylor
from tests import plain
from tests.tiny import TINY


def test_equals_taylor_expansions_at_the_roots() -> None:
    """One neuron at a time: walk along its supporters until it gives nothing, and expand there."""
    torch.manual_seed(2)
    linear = torch.nn.Linear(6, 3, bias=False).double()
    x = torch.randn(6, dtype=torch.float64)
    expected = torch.zeros(6, dtype=torch.float64)
    for row in linear.weight.detach():
        output = row @ x
        supporters = x * ((row * x) * output > 0)
        low, high = 0.0, 1.0  # how far to walk: bisection for the root
        for _ in range(200):
            middle = (low + high) / 2
            low, high = (middle, high) if (row @ (x - middle * supporters)) * output > 0 else (low, middle)
        root = x - low * supporters
        assert abs(row @ root) < 1e-12
        expected += row * (x - root)
    leaf = x.clone().requires_grad_()
    with watched(Backward(Rules("supporters")), linear):
        y = linear(leaf)
    (gradient,) = torch.autograd.grad(y.sum(), leaf)
    np.testing.assert_allclose((gradient * leaf).detach().numpy(), expected.numpy(), atol=1e-10)


@pytest.mark.parametrize("name", ["gpt2", "llama", "bert-classifier", "falcon-multi-query", "t5"])
def test_conserves_and_has_one_sign(name: str) -> None:
    found = deep_taylor(pellucid.load(TINY[name]().double()), plain.IDS, target=1)
    values = found.evidence[0].values
    assert found.evidence[0].ok
    tolerance = 1e-6 if name == "llama" else 1e-10
    assert values["tokens"] + values["forced"] + values["constants"] == pytest.approx(values["start"], abs=tolerance)
    assert (found.scores * np.sign(values["start"]) >= -1e-12).all()
    assert found.scores.any()


def test_a_contrast_subtracts() -> None:
    subject = pellucid.load(plain.tiny("llama"))
    one, other = (deep_taylor(subject, plain.IDS, target=t).scores for t in (plain.TARGET, plain.CONTRAST))
    both = deep_taylor(subject, plain.IDS, target=plain.TARGET, contrast=plain.CONTRAST).scores
    assert both.sum() == pytest.approx(one.sum() - other.sum(), abs=1e-6)
