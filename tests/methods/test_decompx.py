"""DecompX against parts carried through a plain BERT and a plain GPT-2, its sum, and relevance without biases."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import pellucid
from pellucid.core.errors import TargetError
from pellucid.engine.question import ask
from pellucid.engine.relevance import relevance
from pellucid.engine.rules import Rules
from pellucid.methods.vectors.decompx import decompx
from tests import plain

SHAPES = ["llama", "neox-parallel", "opt", "bloom", "mixtral", "gemma2", "t5-gated", "bart", "deberta-v2-classifier"]
Share = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def share(kind: str) -> Share:
    """Give a bias [n] to parts [position, source, n]."""

    def give(parts: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        weight = (parts @ bias).abs() if kind == "dot" else parts.norm(dim=-1)
        weight = (weight > 0).double() if kind == "equal" else weight
        return parts + (weight / weight.sum(-1, keepdim=True))[..., None] * bias

    return give


def linear(parts: torch.Tensor, module: Any, give: Share) -> torch.Tensor:
    weight = module.weight.T if isinstance(module, torch.nn.Linear) else module.weight
    return give(parts @ weight, module.bias)


def norm(parts: torch.Tensor, module: Any, give: Share) -> torch.Tensor:
    spread = (parts.sum(1).var(-1, unbiased=False) + module.eps).sqrt()[:, None, None]
    return give((parts - parts.mean(-1, keepdim=True)) / spread * module.weight, module.bias)


def activation(parts: torch.Tensor, function: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
    total = parts.sum(1, keepdim=True)
    return parts * function(total) / total


def attend(pattern: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """Mix parts of values [position, source, 4 heads of 8]."""
    mixed = torch.einsum("hij,jkhw->ikhw", pattern, values.reshape(6, 6, 4, 8))
    return mixed.reshape(6, 6, 32)


def start(vectors: torch.Tensor) -> torch.Tensor:
    parts = torch.zeros(6, 6, 32, dtype=torch.float64)
    for i in range(6):
        parts[i, i] = vectors[i]
    return parts


def bert(model: Any, patterns: Any, give: Share) -> torch.Tensor:
    parts = start(model.bert.embeddings(torch.tensor([plain.IDS]))[0])
    for block, pattern in zip(model.bert.encoder.layer, patterns, strict=True):
        values = linear(parts, block.attention.self.value, give)
        out = linear(attend(pattern[0], values), block.attention.output.dense, give)
        middle = norm(parts + out, block.attention.output.LayerNorm, give)
        up = activation(linear(middle, block.intermediate.dense, give), torch.nn.functional.gelu)
        parts = norm(middle + linear(up, block.output.dense, give), block.output.LayerNorm, give)
    pooled = activation(linear(parts[:1], model.bert.pooler.dense, give), torch.tanh)
    return linear(pooled, model.classifier, give)[0]


def gpt2(model: Any, patterns: Any, give: Share) -> torch.Tensor:
    body = model.transformer
    parts = start(body.wte(torch.tensor(plain.IDS)) + body.wpe.weight[:6])
    for block, pattern in zip(body.h, patterns, strict=True):
        joint = linear(norm(parts, block.ln_1, give), block.attn.c_attn, give)
        out = linear(attend(pattern[0], joint[..., 64:]), block.attn.c_proj, give)
        middle = parts + out
        up = activation(linear(norm(middle, block.ln_2, give), block.mlp.c_fc, give), block.mlp.act)
        parts = middle + linear(up, block.mlp.c_proj, give)
    return norm(parts, body.ln_f, give)[-1] @ model.lm_head.weight.T


@pytest.mark.parametrize(("name", "kind"), [("bert-classifier", "dot"), ("bert-classifier", "norm"), ("gpt2", "equal")])
def test_equals_the_parts_written_out(name: str, kind: str) -> None:
    model = plain.tiny(name)
    model.set_attn_implementation("eager")
    with torch.no_grad():
        output = model(input_ids=torch.tensor([plain.IDS]), output_attentions=True)
        joint = name == "gpt2"
        # The bias of a joint projection is one bias, so by hand only equal shares split it into q, k and v.
        expected = (gpt2 if joint else bert)(model, output.attentions, share(kind))[:, 1]
    found = decompx(pellucid.load(plain.tiny(name)), plain.IDS, target=1, bias=kind)
    np.testing.assert_allclose(found.scores, expected.numpy(), atol=1e-9)


@pytest.mark.parametrize("name", SHAPES)
def test_parts_sum_to_the_logit_and_to_a_contrast(name: str) -> None:
    model = plain.tiny(name)
    found = decompx(pellucid.load(model), plain.IDS, target=1, contrast=2)
    values = found.evidence[0].values
    assert values["residual"] < 1e-6
    begin = values.get("the decoder's start", 0.0)
    assert (begin != 0) == (name in ("t5-gated", "bart"))
    assert found.scores.sum() + begin == pytest.approx(values["value"], abs=1e-6)
    start = {"decoder_input_ids": torch.tensor([[model.config.decoder_start_token_id]])} if begin else {}
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([plain.IDS]), **start).logits[0]
    logits = logits if logits.ndim == 1 else logits[-1]
    assert values["value"] == pytest.approx(float(logits[1] - logits[2]), abs=1e-6)


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_without_biases_equals_relevance_at_the_same_vectors(name: str) -> None:
    subject = pellucid.load(plain.tiny(name))
    question = ask(subject, plain.IDS, target=plain.TARGET)
    value, gradient = relevance(question, Rules(), sites=["embed"]).sites["embed"][0]
    expected = (value * gradient[0]).sum(-1)[0] if value.ndim == 3 else (value * gradient[0]).sum(-1)
    found = decompx(subject, plain.IDS, target=plain.TARGET, bias="apart")
    np.testing.assert_allclose(found.scores, expected.numpy(), atol=1e-6)


def test_refuses_what_has_no_sum() -> None:
    with pytest.raises(TargetError, match="decompx shares out logits"):
        decompx(pellucid.load(plain.tiny("gpt2")), plain.IDS, target=pellucid.Target(1, measure="prob"))
