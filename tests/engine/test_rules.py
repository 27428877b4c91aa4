"""Every rule on one layer against its formula in loops, and on a small network against Captum."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pellucid.engine.interception import watched
from pellucid.engine.rules import Backward, Rules

RULES = [
    Rules(), Rules(epsilon=0.3), Rules("gamma", gamma=0.5), Rules("alpha_beta", alpha=2.0),
    Rules("alpha_beta", alpha=1.0), Rules("supporters"),
]  # fmt: skip


def layer(inputs: int = 5, outputs: int = 4) -> torch.nn.Linear:
    torch.manual_seed(3)
    return torch.nn.Linear(inputs, outputs).double()


def backwards(module: torch.nn.Module, x: torch.Tensor, rules: Rules, start: torch.Tensor) -> torch.Tensor:
    """The relevance of x when the outputs y have the relevance start * y."""
    x = x.clone().requires_grad_()
    with watched(Backward(rules), module):
        y = module(x)
    (gradient,) = torch.autograd.grad(y, x, start)
    return (gradient * x).detach()


def by_hand(linear: torch.nn.Linear, x: torch.Tensor, rules: Rules, start: torch.Tensor) -> torch.Tensor:
    """One linear layer, one output at a time: contributions of the inputs and of the bias."""
    total = torch.zeros_like(x)
    for k in range(linear.out_features):
        terms = torch.cat([linear.weight[k] * x, linear.bias[k : k + 1]]).detach()
        output = terms.sum()
        relevance = start[k] * output
        positive, negative = terms.clamp(min=0), terms.clamp(max=0)
        same = positive if output > 0 else negative
        if rules.linear == "epsilon":
            shares = terms / (output + rules.epsilon * output.sign())
        elif rules.linear == "gamma":
            shares = (terms + rules.gamma * same) / (terms + rules.gamma * same).sum()
        elif rules.linear == "supporters":
            shares = same / same.sum()
        else:
            shares = rules.alpha * positive / positive.sum() + (1 - rules.alpha) * negative / negative.sum()
        total += (shares * relevance)[:-1]
    return total


@pytest.mark.parametrize("rules", RULES, ids=str)
def test_a_linear_layer_follows_the_formula(rules: Rules) -> None:
    linear, x = layer(), torch.tensor([0.5, -1.0, 2.0, 0.3, -0.7], dtype=torch.float64)
    start = torch.tensor([1.0, -2.0, 0.5, 3.0], dtype=torch.float64)
    found, expected = backwards(linear, x, rules, start), by_hand(linear, x, rules, start)
    np.testing.assert_allclose(found.numpy(), expected.numpy(), atol=1e-12)


def test_supporters_are_gamma_without_end() -> None:
    linear, x = layer(), torch.tensor([0.5, -1.0, 2.0, 0.3, -0.7], dtype=torch.float64)
    start = torch.ones(4, dtype=torch.float64)
    far = backwards(linear, x, Rules("gamma", gamma=1e9), start)
    np.testing.assert_allclose(backwards(linear, x, Rules("supporters"), start).numpy(), far.numpy(), atol=1e-8)


def test_a_norm_is_the_linear_map_at_its_own_spread() -> None:
    norm = torch.nn.LayerNorm(5).double()
    norm.weight.data, norm.bias.data = torch.arange(1.0, 6).double(), torch.ones(5).double()
    x, start = torch.tensor([0.5, -1.0, 2.0, 0.3, -0.7], dtype=torch.float64), torch.arange(5.0).double()
    matrix = torch.diag(norm.weight) @ (torch.eye(5) - torch.ones(5, 5) / 5).double()
    matrix = matrix / (x.var(unbiased=False) + norm.eps).sqrt()
    expected = (matrix * x).T @ start
    np.testing.assert_allclose(backwards(norm, x, Rules(), start).numpy(), expected.detach().numpy(), atol=1e-12)


class Gelu(torch.nn.GELU):
    """An activation of one's own, written in small steps."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return 0.5 * input * (1 + torch.tanh(0.8 * (input + 0.04 * input**3)))


@pytest.mark.parametrize("activation", [torch.nn.GELU(), torch.nn.SiLU(), torch.nn.Tanh(), Gelu()])
def test_activations_pass_relevance_on_unchanged(activation: torch.nn.Module) -> None:
    x = torch.tensor([0.5, -1.0, 0.0, 3.0], dtype=torch.float64)
    start = torch.tensor([1.0, 2.0, 3.0, 4.0], dtype=torch.float64)
    found = backwards(activation, x, Rules(), start)
    np.testing.assert_allclose(found.numpy(), (start * activation(x)).numpy(), atol=1e-12)


def test_the_tempered_softmax_has_the_gradient_of_its_definition() -> None:
    x = torch.tensor([0.3, 2.0, -1.0], dtype=torch.float64, requires_grad=True)
    up = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
    with watched(Backward(Rules(softmax="gradient", temperature=2.0)), torch.nn.Identity()):
        y = x.softmax(-1)
    (found,) = torch.autograd.grad(y, x, up)
    soft = (x / 2).exp() / (x / 2).exp().sum()
    np.testing.assert_allclose(found.numpy(), (soft * (up - (soft * up).sum())).detach().numpy(), atol=1e-12)
    np.testing.assert_allclose(y.detach().numpy(), (x.exp() / x.exp().sum()).detach().numpy(), atol=1e-12)


def test_no_value_changes() -> None:
    torch.manual_seed(0)
    module = torch.nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True).double().train()
    x = torch.randn(1, 4, 8, dtype=torch.float64, requires_grad=True)
    plain = module(x).detach()
    for rules in RULES:
        with watched(Backward(rules), module):
            np.testing.assert_allclose(module(x).detach().numpy(), plain.numpy(), atol=1e-12)


@pytest.mark.peers
@pytest.mark.parametrize("name", ["epsilon", "gamma", "alpha1_beta0"])
def test_agrees_with_captum_on_a_network(name: str) -> None:
    attr = pytest.importorskip("captum.attr")
    rules = pytest.importorskip("captum.attr._utils.lrp_rules")
    torch.manual_seed(1)
    biased = name == "epsilon"  # Captum leaves biases out of the other two
    network = torch.nn.Sequential(
        torch.nn.Linear(6, 8, bias=biased), torch.nn.ReLU(), torch.nn.Linear(8, 5, bias=biased), torch.nn.ReLU(),
        torch.nn.Linear(5, 3, bias=biased),
    ).double()  # fmt: skip
    ours, theirs = {
        "epsilon": (Rules(epsilon=0.1), lambda: rules.EpsilonRule(epsilon=0.1)),
        "gamma": (Rules("gamma", gamma=0.25), lambda: rules.GammaRule(gamma=0.25)),
        "alpha1_beta0": (Rules("alpha_beta", alpha=1.0), rules.Alpha1_Beta0_Rule),
    }[name]
    network[4].weight.data.abs_()  # so that the output is positive, where the rules of both agree
    x = torch.rand(1, 6, dtype=torch.float64).requires_grad_()  # Captum warns of one that does not
    for module in network:
        if isinstance(module, torch.nn.Linear):
            module.rule = theirs()
    expected = attr.LRP(network).attribute(x, target=1)
    start = torch.zeros(1, 3, dtype=torch.float64)
    start[0, 1] = 1
    found = backwards(network, x.detach(), ours, start)
    np.testing.assert_allclose(found.numpy(), expected.detach().numpy(), atol=1e-6)
