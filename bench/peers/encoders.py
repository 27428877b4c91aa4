"""ALTI, GlobEnc and DecompX on a BERT classifier, re-enacted from their papers: a vector per pair of tokens and layer.

ALTI: Ferrando et al. 2022, arXiv:2203.04212; GlobEnc: Modarressi et al. 2022, arXiv:2205.03286; DecompX: Modarressi et
al. 2023, arXiv:2306.02873. As there, the patterns come from a run with attention written out, and every block is
decomposed from its own hidden states.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from bench.jobs import as_array, no_gradients
from bench.models import Case
from bench.ways import Setting, Way, whole

CLASS = 1


def alti(setting: Setting) -> list[Way]:
    """Shares of the stream behind attention by L1 distance, rolled out to the first token."""
    return [_way(setting, lambda block, pattern, before: _nearness(*_behind_attention(block, pattern, before)))]


def globenc(setting: Setting) -> list[Way]:
    """Lengths of the shares behind both norms, rolled out to the first token."""
    return [_way(setting, _lengths)]


def decompx(setting: Setting) -> list[Way]:
    """Parts of every vector by the token they come from, up to the logit; biases by the absolute dot product."""
    run = _run(setting)

    @torch.no_grad()
    def attribute(case: Case, batch: int) -> np.ndarray:
        model = setting.model
        states, patterns = run(case)
        parts = torch.diag_embed(states[0].T).permute(1, 2, 0)
        for block, pattern in zip(model.bert.encoder.layer, patterns, strict=True):
            parts = _carried(block, pattern, parts)
        pooled = _activated(_linear(parts[:1], model.bert.pooler.dense), torch.tanh)
        return as_array(_linear(pooled, model.classifier)[0, :, CLASS])

    return [Way("published loop, re-enacted", attribute, timed_agree=whole)]


def _way(setting: Setting, matrix: Callable[[Any, torch.Tensor, torch.Tensor], torch.Tensor]) -> Way:
    run = _run(setting)

    @torch.no_grad()
    def attribute(case: Case, batch: int) -> np.ndarray:
        states, patterns = run(case)
        total = torch.eye(len(case.ids), device=setting.device)
        for block, pattern, before in zip(setting.model.bert.encoder.layer, patterns, states[:-1], strict=True):
            total = matrix(block, pattern, before) @ total
        return as_array(total[0])

    return Way("published loop, re-enacted", attribute, timed_agree=whole)


def _run(setting: Setting) -> Callable[[Case], tuple[list[torch.Tensor], list[torch.Tensor]]]:
    """Return what gives the hidden states and the attention patterns of a prompt."""
    model = no_gradients(setting.model)
    model.set_attn_implementation("eager")

    def run(case: Case) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        ids = torch.tensor([case.ids], device=setting.device)
        output = model.bert(ids, output_hidden_states=True, output_attentions=True)
        return [state[0] for state in output.hidden_states], [pattern[0] for pattern in output.attentions]

    return run


def _normed(parts: torch.Tensor, summed: torch.Tensor, norm: Any) -> torch.Tensor:
    """Return the linear part of a layer norm on parts [query, key, dimension], at the spread of their sum."""
    spread = (summed.var(-1, unbiased=False) + norm.eps).sqrt()
    return (parts - parts.mean(-1, keepdim=True)) / spread[:, None, None] * norm.weight


def _behind_attention(block: Any, pattern: torch.Tensor, before: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return shares [query, key, dimension] behind the first norm, and the stream there."""
    own, output = block.attention.self, block.attention.output
    heads, length = pattern.shape[:2]
    value = own.value(before).view(length, heads, -1)
    projected = torch.stack([value[:, h] @ w.T for h, w in enumerate(output.dense.weight.chunk(heads, 1))])
    vectors = torch.einsum("hqk,hkd->qkd", pattern, projected)
    vectors += torch.diag_embed(before.T).permute(1, 2, 0)
    summed = vectors.sum(1) + output.dense.bias
    return _normed(vectors, summed, output.LayerNorm), output.LayerNorm(summed)


def _nearness(shares: torch.Tensor, middle: torch.Tensor) -> torch.Tensor:
    distance = (middle[:, None] - shares).abs().sum(-1)
    near = (middle.abs().sum(-1, keepdim=True) - distance).clamp(min=0)
    return near / near.sum(-1, keepdim=True)


def _lengths(block: Any, pattern: torch.Tensor, before: torch.Tensor) -> torch.Tensor:
    shares, middle = _behind_attention(block, pattern, before)
    last = middle + block.output.dense(block.intermediate(middle))
    lengths = _normed(shares, last, block.output.LayerNorm).norm(dim=-1)
    return lengths / lengths.sum(-1, keepdim=True)


def _given(parts: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """Share a bias among parts [position, source, dimension] by the absolute value of their product with it."""
    weight = (parts @ bias).abs()
    return parts + (weight / weight.sum(-1, keepdim=True))[..., None] * bias


def _linear(parts: torch.Tensor, module: Any) -> torch.Tensor:
    return _given(parts @ module.weight.T, module.bias)


def _activated(parts: torch.Tensor, function: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
    total = parts.sum(1, keepdim=True)
    return parts * function(total) / total


def _carried(block: Any, pattern: torch.Tensor, parts: torch.Tensor) -> torch.Tensor:
    """Return the parts of what leaves a block from those of what enters it: [position, source, dimension]."""
    output, heads = block.attention.output, pattern.shape[0]
    value = _linear(parts, block.attention.self.value).unflatten(-1, (heads, -1))
    mixed = torch.einsum("hij,jkhw->ikhw", pattern, value).flatten(2)
    added = parts + _linear(mixed, output.dense)
    middle = _given(_normed(added, added.sum(1), output.LayerNorm), output.LayerNorm.bias)
    inner = _activated(_linear(middle, block.intermediate.dense), block.intermediate.intermediate_act_fn)
    last = middle + _linear(inner, block.output.dense)
    return _given(_normed(last, last.sum(1), block.output.LayerNorm), block.output.LayerNorm.bias)
