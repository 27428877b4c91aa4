"""Permuted attention against all permutations by hand, uniform attention that cannot change, and Hugging Face runs."""

import itertools
from typing import Literal

import numpy as np
import pytest
import torch
from scipy.stats import kendalltau

import pellucid
from pellucid import Edit, Target
from pellucid.core.errors import TargetError
from pellucid.engine.capture import capture
from pellucid.methods.attention.permuted_attention import permuted_attention
from tests import plain

SHORT = [11, 42, 7]


def test_equals_the_median_over_all_permutations() -> None:
    """Three tokens have six permutations; the native model with a swapped pattern gives each distance."""
    model = plain.tiny()
    subject = pellucid.load(model)
    own = plain.logits(model, SHORT).softmax(-1)
    pattern = capture(subject, SHORT, ["blocks.0.attn.pattern"])["blocks.0.attn.pattern"]
    project = model.transformer.h[0].attn.c_proj
    value = capture(subject, SHORT, ["blocks.0.attn.v"])["blocks.0.attn.v"]
    moved = []
    for order in itertools.permutations(range(3)):
        new = pattern.clone()
        new[1, 2] = pattern[1, 2, list(order)]
        mixed = torch.einsum("hqk,khd->qhd", new, value).reshape(1, 3, -1)
        hook = project.register_forward_pre_hook(lambda module, args, mixed=mixed: (mixed,))
        moved.append(float(0.5 * (plain.logits(model, SHORT).softmax(-1) - own).abs().sum()))
        hook.remove()
    assert len(set(moved)) == 6
    found = permuted_attention(subject, SHORT, target=plain.TARGET, layers=[0], samples=1)
    assert found.values.shape == (1, 4)
    draws = [
        permuted_attention(subject, SHORT, target=plain.TARGET, layers=[0], samples=1, seed=s).values[0, 1]
        for s in range(2)
    ]
    for draw in draws:
        assert np.abs(np.array(moved) - draw).min() < 1e-10
    many = permuted_attention(subject, SHORT, target=plain.TARGET, layers=[0], samples=40)
    middle = sorted(moved)[2:4]
    assert middle[0] - 1e-10 <= many.values[0, 1] <= middle[1] + 1e-10


@pytest.mark.parametrize("heads", ["each", "together"])
def test_equal_weights_cannot_be_permuted(heads: Literal["each", "together"]) -> None:
    def even(value: torch.Tensor, context: object) -> torch.Tensor:
        ones = torch.ones_like(value).tril()
        return ones / ones.sum(-1, keepdim=True)

    subject = pellucid.load(plain.tiny()).with_(Edit("blocks.1.attn.pattern", even))
    found = permuted_attention(subject, plain.IDS, target=plain.TARGET, samples=4, heads=heads)
    np.testing.assert_allclose(found.values[1], 0, atol=1e-12)
    assert (found.values[0] > 1e-6).all()
    assert found.std_error is not None
    assert (found.std_error >= 0).all()
    assert found.axes == (("layer", "head") if heads == "each" else ("layer",))


def test_compares_attention_with_gradients_and_leave_one_out() -> None:
    model = plain.tiny("bert-classifier")
    subject = pellucid.load(model)
    [check] = permuted_attention(subject, plain.IDS, target=1, layers=[1], samples=1).evidence
    row = capture(subject, plain.IDS, ["blocks.1.attn.pattern"])["blocks.1.attn.pattern"][:, 0].mean(0)
    product = pellucid.run("gradient_x_input", subject, prompt=plain.IDS, target=1).scores
    with torch.no_grad():
        outputs = [
            model(input_ids=torch.tensor([ids])).logits[0].softmax(-1)
            for ids in (plain.IDS, *([*plain.IDS[:i], *plain.IDS[i + 1 :]] for i in range(6)))
        ]
    effects = [float(0.5 * (outputs[0] - other).abs().sum()) for other in outputs[1:]]
    assert check.values["tau_gradient"] == pytest.approx(kendalltau(row.numpy(), np.abs(product))[0])
    assert check.values["tau_leave_one_out"] == pytest.approx(kendalltau(row.numpy(), effects)[0])
    weights = capture(subject, plain.IDS, ["blocks.1.attn.pattern"])["blocks.1.attn.pattern"]
    assert check.values["largest"] == pytest.approx(float(weights[:, 0].max()))


def test_refuses_a_target_of_several_tokens() -> None:
    with pytest.raises(TargetError, match="2 tokens"):
        permuted_attention(pellucid.load(plain.tiny()), plain.IDS, target=Target.continuation([17, 33]))
