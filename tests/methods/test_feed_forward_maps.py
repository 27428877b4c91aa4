"""Feed-forward maps: conservation, a gated layer by integration along the way, and linear layers exactly."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import pellucid
from pellucid.core.errors import SiteError
from pellucid.engine.feed_forward import feed_forward_layers
from pellucid.engine.transformed import attention_blocks
from pellucid.methods.vectors.feed_forward_maps import feed_forward_maps
from pellucid.methods.vectors.norm_based_attention import norm_based_attention
from tests import plain

NAMES = ["gpt2", "llama", "bert-classifier", "neox-parallel", "gemma2"]


@pytest.mark.parametrize("name", NAMES)
def test_vectors_sum_to_the_output_of_every_block(name: str) -> None:
    found = feed_forward_maps(pellucid.load(plain.tiny(name)), plain.IDS, target=1)
    assert found.evidence[0].values["residual"] < 1e-6
    assert found.values.shape[1:] == (6, 6)
    if name != "bert-classifier":
        assert not np.triu(found.values[0], 1).any(), "nothing comes from later tokens"


def test_behind_attention_it_is_norm_based_attention_with_the_residual() -> None:
    subject = pellucid.load(plain.tiny("llama"))
    one = feed_forward_maps(subject, plain.IDS, target=1, include="attention")
    other = norm_based_attention(subject, plain.IDS, target=1, include="residual")
    np.testing.assert_allclose(one.values, other.values, atol=1e-9)


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_shares_are_integrated_gradients_of_the_feed_forward_layer(name: str) -> None:
    """Integrate the layer's slope along the straight way from no input to its input, with many small steps."""
    model: Any = plain.tiny(name)
    subject = pellucid.load(model)
    tokens = subject.encode(plain.IDS)
    block = attention_blocks(subject, tokens)[1]
    layers = feed_forward_layers(subject, tokens, "", [b.middle for b in attention_blocks(subject, tokens)])
    rows, shares = next(block.shares())
    parts = torch.cat([shares, (block.middle[rows] - shares.sum(1))[:, None]], 1)
    found = layers[1].shares(parts, rows)

    stream, query, key = block.middle, 4, 2
    own = (model.transformer.h if name == "gpt2" else model.model.layers)[1]
    if name == "gpt2":
        spread = (stream.var(-1, unbiased=False, keepdim=True) + own.ln_2.eps).sqrt()
        tangent = (parts - parts.mean(-1, keepdim=True))[query, key] / spread[query] * own.ln_2.weight
        weight, bias, down = own.mlp.c_fc.weight, own.mlp.c_fc.bias, own.mlp.c_proj.weight.T
        inputs = own.ln_2(stream)[query]

        def neurons(a: float, move: float) -> torch.Tensor:
            return own.mlp.act(a * (inputs @ weight + bias) + move * tangent @ weight)
    else:
        norm = own.post_attention_layernorm
        spread = (stream.pow(2).mean(-1, keepdim=True) + norm.variance_epsilon).sqrt()
        tangent, inputs, down = (
            parts[query, key] / spread[query] * norm.weight,
            norm(stream)[query],
            own.mlp.down_proj.weight,
        )

        def neurons(a: float, move: float) -> torch.Tensor:
            point = a * inputs + move * tangent
            return own.mlp.act_fn(own.mlp.gate_proj(point)) * own.mlp.up_proj(point)

    steps, move = 500, 1e-6
    with torch.no_grad():
        ways = [(step + 0.5) / steps for step in range(steps)]
        slopes = [(neurons(a, move) - neurons(a, -move)) / (2 * move) for a in ways]
        expected = down @ torch.stack(slopes).mean(0)
    torch.testing.assert_close(found[query, key], expected, atol=1e-6, rtol=1e-5)


def test_joint_experts_are_refused() -> None:
    with pytest.raises(SiteError):
        feed_forward_maps(pellucid.load(plain.tiny("mixtral")), plain.IDS, target=1)
