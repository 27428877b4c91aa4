"""Transformed vectors against a plain re-derivation from the weights, and the sums that they must give."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch

import pellucid
from pellucid.core.errors import ModelError
from pellucid.engine.frozen_norms import frozen_norm
from pellucid.engine.transformed import attention_blocks, contributions, projected, proximity
from tests import plain
from tests.tiny import TINY

NAMES = ["gpt2", "llama", "bert-classifier"]
SHAPES = ["neox-parallel", "opt-post-norm", "bloom", "falcon-new", "mixtral", "gemma2", "granite", "modernbert", "t5"]
Norm = Callable[[torch.Tensor], torch.Tensor]


@dataclass
class PlainBlock:
    """One block written out: vectors [head, query, key, dimension], and the stream around them."""

    vectors: torch.Tensor
    bias: torch.Tensor
    before: torch.Tensor
    middle: torch.Tensor
    after: torch.Tensor
    feed_forward: torch.Tensor
    norm: Norm | None = None
    last: Norm | None = None


@functools.cache
def plain_blocks(name: str) -> list[PlainBlock]:
    model = plain.tiny(name)
    model.set_attn_implementation("eager")
    with torch.no_grad():
        patterns = model(input_ids=torch.tensor([plain.IDS]), output_attentions=True).attentions
        return {"gpt2": _gpt2, "llama": _llama, "bert-classifier": _bert}[name](model, [p[0] for p in patterns])


def _terms(pattern: torch.Tensor, values: torch.Tensor, out: torch.Tensor) -> torch.Tensor:
    """The vectors head by head: values [key, head, width], out [dimension, head * width]."""
    heads, width = values.shape[1:]
    terms = []
    for head in range(heads):
        moved = values[:, head] @ out[:, head * width : (head + 1) * width].T
        terms.append(pattern[head][:, :, None] * moved[None])
    return torch.stack(terms)


def _gpt2(model: Any, patterns: list[torch.Tensor]) -> list[PlainBlock]:
    body, found = model.transformer, []
    x = body.wte(torch.tensor(plain.IDS)) + body.wpe.weight[: len(plain.IDS)]
    for block, pattern in zip(body.h, patterns, strict=True):
        joint = block.ln_1(x) @ block.attn.c_attn.weight + block.attn.c_attn.bias
        terms = _terms(pattern, joint[:, 64:].view(6, 4, 8), block.attn.c_proj.weight.T)
        middle = x + terms.sum((0, 2)) + block.attn.c_proj.bias
        added = block.mlp(block.ln_2(middle))
        found.append(PlainBlock(terms, block.attn.c_proj.bias, x, middle, middle + added, added))
        after = middle + added
        x = after
    return found


def _llama(model: Any, patterns: list[torch.Tensor]) -> list[PlainBlock]:
    found = []
    x = model.model.embed_tokens(torch.tensor(plain.IDS))
    for block, pattern in zip(model.model.layers, patterns, strict=True):
        shared = block.self_attn.v_proj(block.input_layernorm(x)).view(6, 2, 8)
        values = torch.stack([shared[:, head // 2] for head in range(4)], 1)
        terms = _terms(pattern, values, block.self_attn.o_proj.weight)
        middle = x + terms.sum((0, 2))
        added = block.mlp(block.post_attention_layernorm(middle))
        after = middle + added
        found.append(PlainBlock(terms, torch.zeros(32, dtype=torch.float64), x, middle, after, added))
        x = after
    return found


def _bert(model: Any, patterns: list[torch.Tensor]) -> list[PlainBlock]:
    found = []
    x = model.bert.embeddings(torch.tensor([plain.IDS]))[0]
    for block, pattern in zip(model.bert.encoder.layer, patterns, strict=True):
        dense = block.attention.output.dense
        terms = _terms(pattern, block.attention.self.value(x).view(6, 4, 8), dense.weight)
        summed = x + terms.sum((0, 2)) + dense.bias
        middle = block.attention.output.LayerNorm(summed)
        added = block.output.dense(block.intermediate(middle))
        after = block.output.LayerNorm(middle + added)
        norm, last = _at(block.attention.output.LayerNorm, summed), _at(block.output.LayerNorm, middle + added)
        found.append(PlainBlock(terms, dense.bias, x, middle, after, added, norm, last))
        x = after
    return found


def _at(module: Any, inputs: torch.Tensor) -> Norm:
    """A layer norm's linear part, with the spread of its inputs."""
    spread = (inputs.var(-1, unbiased=False) + module.eps).sqrt()[:, None, None]
    return lambda vectors: (vectors - vectors.mean(-1, keepdim=True)) / spread.detach() * module.weight.detach()


@pytest.mark.parametrize("name", NAMES)
def test_vectors_equal_those_written_out(name: str) -> None:
    subject = pellucid.load(plain.tiny(name))
    found = attention_blocks(subject, subject.encode(plain.IDS))
    digits = 1e-6 if name == "llama" else 1e-9  # its norms and eager softmax compute in float32 in any model
    for block, expected in zip(found, plain_blocks(name), strict=True):
        for rows, vectors in block.vectors():
            torch.testing.assert_close(vectors, expected.vectors.sum(0)[rows], atol=digits, rtol=0)
        torch.testing.assert_close(block.before, expected.before, atol=digits, rtol=0)
        torch.testing.assert_close(block.middle, expected.middle, atol=digits, rtol=0)
        torch.testing.assert_close(block.after, expected.after, atol=digits, rtol=0)


@pytest.mark.parametrize("name", [*NAMES, *SHAPES])
def test_vectors_and_bias_sum_to_the_output_of_attention_and_shares_to_the_stream(name: str) -> None:
    subject = pellucid.load(plain.tiny(name))
    for block in attention_blocks(subject, subject.encode(plain.IDS)):
        summed = torch.cat([vectors.sum(1) for _, vectors in block.vectors()])
        torch.testing.assert_close(summed + block.bias, block.attended, atol=1e-9, rtol=0)
        middle = torch.cat([shares.sum(1) for _, shares in block.shares()])
        constant = block.bias.expand_as(middle)
        if block.sub_norm is not None:
            constant = block.sub_norm(constant) + block.sub_norm.bias
        constant = constant * block.scale
        if block.middle_norm is not None:
            constant = block.middle_norm(constant) + block.middle_norm.bias
        torch.testing.assert_close(middle + constant, block.middle, atol=1e-6, rtol=0)
        added = block.middle + block.feed_forward
        behind = added if block.last_norm is None else block.last_norm(added) + block.last_norm.bias
        torch.testing.assert_close(behind, block.after, atol=1e-6, rtol=0)
        rows = contributions(block).sum(-1)
        torch.testing.assert_close(rows, torch.ones_like(rows))


def test_a_frozen_norm_is_the_derivative_with_the_divisor_held() -> None:
    torch.manual_seed(0)
    inputs, vectors = torch.randn(5, 7).double(), torch.randn(5, 3, 7).double()
    layer, rms = torch.nn.LayerNorm(7).double(), torch.nn.RMSNorm(7, eps=1e-6).double()
    for module in (layer, rms):
        module.weight.data = torch.randn(7).double()
    layer.bias.data = torch.randn(7).double()
    found = frozen_norm(layer, inputs)
    torch.testing.assert_close(found(vectors), _at(layer, inputs)(vectors))
    torch.testing.assert_close(found.bias, layer.bias.detach())
    divisor = (inputs.square().mean(-1) + 1e-6).sqrt()[:, None, None]
    torch.testing.assert_close(frozen_norm(rms, inputs)(vectors), vectors / divisor * rms.weight.detach())
    forth, back = found(vectors[:, 0]), found.back(inputs)
    assert float((forth * inputs).sum()) == pytest.approx(float((vectors[:, 0] * back).sum()))
    with pytest.raises(ModelError, match="Tanh is no layer norm"):
        frozen_norm(torch.nn.Tanh(), inputs)


def test_proximity_is_a_share_also_where_no_part_comes_near() -> None:
    parts = torch.tensor([[[2.0, 0.0], [0.0, 1.0], [0.0, 0.0]], [[9.0, 0.0], [-9.0, 1.0], [0.0, 0.0]]])
    whole = torch.tensor([[2.0, 1.0], [0.0, 0.0]])
    expected = torch.tensor([[2 / 3, 1 / 3, 0.0], [9 / 19, 10 / 19, 0.0]])
    torch.testing.assert_close(proximity(parts, whole), expected)


def test_a_projection_is_found_also_where_its_weights_cannot_be_read() -> None:
    linear = torch.nn.Linear(6, 4).double()
    wrapped = torch.nn.Sequential(linear)
    like = torch.zeros(1, 4).double()
    for a, b in zip(projected(linear, 6, like), projected(wrapped, 6, like), strict=True):
        torch.testing.assert_close(a, b.detach())


def test_an_edit_that_breaks_the_sum_is_refused_and_one_that_does_not_is_followed() -> None:
    subject = pellucid.load(TINY["llama"]())
    tokens = subject.encode(plain.IDS)
    scaled = attention_blocks(subject.with_(pellucid.Edit("blocks.0.attn.pattern", "scale", 0.5)), tokens)
    whole = attention_blocks(subject, tokens)
    torch.testing.assert_close(scaled[0].pattern, whole[0].pattern / 2)
    with pytest.raises(ModelError, match=r"scale blocks\.1\.attn\.out"):
        attention_blocks(subject.with_(pellucid.Edit("blocks.1.attn.out", "scale", 0.5)), tokens)
