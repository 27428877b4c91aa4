"""Head importance against finite differences of a factor on the head, by hooks of PyTorch."""

import numpy as np
import pytest
import torch

import pellucid
from pellucid.core.errors import InputError, SiteError
from pellucid.methods.attention.head_importance import head_importance
from tests import plain

OTHER = [9, 80, 3, 3]


def derivative(ids: list[int], target: int) -> np.ndarray:
    """Return the slope of a log-probability in a factor on each head: [layer, head]."""
    model = plain.tiny("gpt2")
    slopes = np.zeros((2, 4))
    for layer, head in np.ndindex(2, 4):
        ends = []
        for factor in (1 + 1e-5, 1 - 1e-5):

            def turn(module: torch.nn.Module, args: tuple, head: int = head, factor: float = factor) -> tuple:
                z = args[0].clone()
                z[..., 8 * head : 8 * head + 8] *= factor
                return (z,)

            handle = model.transformer.h[layer].attn.c_proj.register_forward_pre_hook(turn)
            ends.append(float(plain.logits(model, ids).log_softmax(-1)[target]))
            handle.remove()
        slopes[layer, head] = (ends[0] - ends[1]) / 2e-5
    return slopes


def test_is_the_mean_size_of_the_slope_in_a_gate_on_the_head() -> None:
    expected = np.stack([np.abs(derivative(plain.IDS, 17)), np.abs(derivative(OTHER, 33))])
    found = head_importance(
        pellucid.load(plain.tiny("gpt2")), plain.IDS, target=pellucid.Target(17, measure="log_prob"), others=[OTHER],
        other_targets=[pellucid.Target(33, measure="log_prob")],
    )  # fmt: skip
    np.testing.assert_allclose(found.scores, expected.mean(0), rtol=1e-6, atol=1e-9)
    assert found.std_error is not None
    np.testing.assert_allclose(found.std_error, np.abs(expected[0] - expected[1]) / 2, rtol=1e-5, atol=1e-9)


def test_layerwise_gives_each_layer_the_norm_one() -> None:
    subject = pellucid.load(plain.tiny("llama"))
    plainly = head_importance(subject, plain.IDS, target=17).scores
    found = head_importance(subject, plain.IDS, target=17, layerwise=True).scores
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1)
    np.testing.assert_allclose(found * np.linalg.norm(plainly, axis=1, keepdims=True), plainly)


def test_bad_input_is_refused() -> None:
    subject = pellucid.load(plain.tiny("gpt2"))
    with pytest.raises(SiteError, match="no heads"):
        head_importance(subject, plain.IDS, target=17, site="mlp.post")
    with pytest.raises(InputError, match="2 other_targets for 1"):
        head_importance(subject, plain.IDS, target=17, others=[OTHER], other_targets=[1, 2])
