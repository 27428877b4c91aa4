"""Contextual decomposition against the split written out on a plain GPT-2, and what happens when all is one source."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import pellucid
from pellucid.methods.relevance.contextual_decomposition import contextual_decomposition
from tests import plain

Split = tuple[torch.Tensor, torch.Tensor]


def linear(split: Split, weight: torch.Tensor, bias: torch.Tensor) -> Split:
    part, rest = (v @ weight for v in split)
    size = part.abs() + rest.abs()
    share = torch.where(size > 0, part.abs() / size, 0.0)
    return part + bias * share, rest + bias * (1 - share)


def norm(split: Split, module: Any) -> Split:
    total = sum(split)
    spread = (total.var(-1, unbiased=False, keepdim=True) + module.eps).sqrt()
    size = split[0].abs() + split[1].abs()
    share = torch.where(size > 0, split[0].abs() / size, 0.0)
    part, rest = ((v - v.mean(-1, keepdim=True)) / spread * module.weight for v in split)
    return part + module.bias * share, rest + module.bias * (1 - share)


def by_hand(model: Any, source: int, average: bool) -> float:
    """The part of the target that the embedding of one token brings about."""
    body, length = model.transformer, len(plain.IDS)
    hidden = torch.ones(length, length, dtype=torch.bool).triu(1)
    words = plain.embeddings(model, plain.IDS)
    part = torch.zeros_like(words)
    part[source] = words[source]
    split: Split = (part, words - part + body.wpe.weight[:length])

    def activation(split: Split, f: Any) -> Split:
        part, rest = split
        last = f(part + rest) - f(rest)
        new = (last + f(part) - f(torch.zeros_like(part))) / 2 if average else last
        return new, f(part + rest) - new

    for block in body.h:
        joint = linear(norm(split, block.ln_1), block.attn.c_attn.weight, block.attn.c_attn.bias)
        q, k, _ = (joint[0] + joint[1]).view(length, 3, 4, 8).unbind(1)
        scores = torch.einsum("qhd,khd->hqk", q, k) / 8**0.5
        pattern = scores.masked_fill(hidden, -torch.inf).softmax(-1)
        values = (v.view(length, 3, 4, 8)[:, 2] for v in joint)
        mixed = tuple(torch.einsum("hqk,khd->qhd", pattern, v).reshape(length, 32) for v in values)
        attended = linear(mixed, block.attn.c_proj.weight, block.attn.c_proj.bias)
        split = split[0] + attended[0], split[1] + attended[1]
        up = linear(norm(split, block.ln_2), block.mlp.c_fc.weight, block.mlp.c_fc.bias)
        down = linear(activation(up, block.mlp.act), block.mlp.c_proj.weight, block.mlp.c_proj.bias)
        split = split[0] + down[0], split[1] + down[1]
    part, rest = norm(split, body.ln_f)
    total = (part + rest)[-1] @ model.lm_head.weight[plain.TARGET]
    assert float(total) == pytest.approx(float(plain.logits(model, plain.IDS)[plain.TARGET]), abs=1e-9)
    return float(part[-1] @ model.lm_head.weight[plain.TARGET])


@pytest.mark.parametrize("activation", ["last", "average"])
def test_equals_the_split_written_out(activation: str) -> None:
    model = plain.tiny()
    with torch.no_grad():
        expected = [by_hand(model, i, activation == "average") for i in range(len(plain.IDS))]
    found = contextual_decomposition(pellucid.load(model), plain.IDS, target=plain.TARGET, activation=activation)
    np.testing.assert_allclose(found.scores, expected, atol=1e-10)


def test_one_source_of_everything_is_the_target() -> None:
    """A Llama has no constants, so that nothing is left to the rest."""
    model = plain.tiny("llama")
    for activation in ("last", "average"):
        found = contextual_decomposition(
            pellucid.load(model), plain.IDS, target=plain.TARGET, unit=[(0, 6)], activation=activation
        )
        assert found.scores[0] == pytest.approx(float(plain.logits(model, plain.IDS)[plain.TARGET]), abs=1e-6)


def test_heads_are_sources_too() -> None:
    model = plain.tiny("llama")
    subject = pellucid.load(model)
    found = contextual_decomposition(subject, plain.IDS, target=plain.TARGET, sources="heads")
    assert found.axes == ("layer", "head")
    assert found.values.shape == (2, 4)
    # Without its output weights, a head of the last layer has no part.
    model.model.layers[1].self_attn.o_proj.weight.data[:, 8:16] = 0
    silent = contextual_decomposition(pellucid.load(model), plain.IDS, target=plain.TARGET, sources="heads")
    assert silent.values[1, 1] == 0
    assert abs(found.values[1, 1]) > 1e-4


def test_sources_do_not_touch_each_other() -> None:
    subject = pellucid.load(plain.tiny("llama"))
    spans = [(0, 2), (3, 4)]
    both = contextual_decomposition(subject, plain.IDS, target=plain.TARGET, unit=spans)
    for i, span in enumerate(spans):
        alone = contextual_decomposition(subject, plain.IDS, target=plain.TARGET, unit=[span])
        assert alone.scores[0] == pytest.approx(both.scores[i], abs=1e-10)
