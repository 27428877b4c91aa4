"""Relevance in a tiny Llama, propagated explicitly: every rule written out on values, weights and shares.

No gradient and nothing of pellucid is used: a step knows its inputs, its output and the relevance of its output.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch


def shared(contributions: torch.Tensor, output: torch.Tensor, relevance: torch.Tensor) -> torch.Tensor:
    """Share relevance [out] among inputs in proportion to contributions [out, in] to the output [out]: [in]."""
    return (contributions * (relevance / output)[:, None]).sum(0)


def linear(weight: torch.Tensor, x: torch.Tensor, relevance: torch.Tensor) -> torch.Tensor:
    """The rule with epsilon = 0 of a linear layer [out, in] at every position: [positions, in]."""
    rows = []
    for position in range(len(x)):
        contributions = weight * x[position]
        rows.append(shared(contributions, contributions.sum(1), relevance[position]))
    return torch.stack(rows)


def rms(x: torch.Tensor, norm: Any) -> torch.Tensor:
    return x / (x.square().mean(-1, keepdim=True) + norm.variance_epsilon).sqrt() * norm.weight


def rotation(model: Any, positions: int) -> torch.Tensor:
    """The matrix [positions, width, width] that rotates a query or key."""
    width = model.config.hidden_size // model.config.num_attention_heads
    cos, sin = model.model.rotary_emb(torch.zeros(1, dtype=torch.float64), torch.arange(positions)[None])
    half = torch.zeros(width, width, dtype=torch.float64)
    for i in range(width // 2):
        half[i, i + width // 2], half[i + width // 2, i] = -1, 1
    return torch.stack([torch.diag(cos[0, p]) + sin[0, p][:, None] * half for p in range(positions)])


def attention(
    parts: dict[str, torch.Tensor], relevance: torch.Tensor, *, given: bool
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Relevance of query, key and value [positions, width] of one head from that of its output."""
    q, k, v, scores, pattern = (parts[name] for name in ("q", "k", "v", "scores", "pattern"))
    length = len(q)
    to_q, to_k, to_v = (torch.zeros_like(t) for t in (q, k, v))
    for row in range(length):
        output = pattern[row] @ v
        terms = pattern[row][:, None] * v * (relevance[row] / output)[None]
        if given:
            to_v += terms
            continue
        to_v += terms / 2
        to_pattern = terms.sum(1) / 2
        seen = range(row + 1)
        for column in seen:
            to_score = scores[row, column] * (to_pattern[column] - pattern[row, column] * to_pattern.sum())
            share = q[row] * k[column] / (q[row] @ k[column]) * to_score / 2
            to_q[row] += share
            to_k[column] += share
    return to_q, to_k, to_v


def relevance(model: Any, ids: Sequence[int], target: int, *, given: bool) -> torch.Tensor:
    """Relevance of every token's embedding [positions]; `given` takes attention patterns as constants (LRP)."""
    with torch.no_grad():
        layers, x = [], model.model.embed_tokens(torch.tensor(list(ids)))
        turn = rotation(model, len(ids))
        for layer in model.model.layers:
            kept = _forward(model, layer, x, turn)
            layers.append(kept)
            x = kept["post"]
        last = rms(x, model.model.norm)[-1] * model.lm_head.weight[target]
        back = torch.zeros_like(x)
        back[-1] = last
        for layer, kept in zip(reversed(model.model.layers), reversed(layers), strict=True):
            back = _backward(model, layer, kept, turn, back, given=given)
    return back.sum(-1)


def _forward(model: Any, layer: Any, x: torch.Tensor, turn: torch.Tensor) -> dict[str, Any]:
    heads, shared_heads = model.config.num_attention_heads, model.config.num_key_value_heads
    own, length = layer.self_attn, len(x)
    normed = rms(x, layer.input_layernorm)
    q = own.q_proj(normed).reshape(length, heads, -1)
    k, v = (p(normed).reshape(length, shared_heads, -1) for p in (own.k_proj, own.v_proj))
    parts, outputs = [], []
    for head in range(heads):
        group = head // (heads // shared_heads)
        turned_q, turned_k = (torch.einsum("pij,pj->pi", turn, t) for t in (q[:, head], k[:, group]))
        scores = turned_q @ turned_k.T / q.shape[-1] ** 0.5
        hidden = torch.ones(length, length, dtype=torch.bool).triu(1)
        pattern = scores.masked_fill(hidden, -torch.inf).softmax(-1)
        parts.append({"q": turned_q, "k": turned_k, "v": v[:, group], "scores": scores, "pattern": pattern})
        outputs.append(pattern @ v[:, group])
    z = torch.cat(outputs, -1)
    mid = x + own.o_proj(z)
    inner = rms(mid, layer.post_attention_layernorm)
    gate, up = layer.mlp.gate_proj(inner), layer.mlp.up_proj(inner)
    hidden = torch.nn.functional.silu(gate) * up
    out = layer.mlp.down_proj(hidden)
    return {
        "x": x, "normed": normed, "q": q, "k": k, "parts": parts, "z": z, "mid": mid, "inner": inner, "hidden": hidden,
        "out": out, "post": mid + out,
    }  # fmt: skip


def _backward(
    model: Any, layer: Any, kept: dict[str, Any], turn: torch.Tensor, back: torch.Tensor, *, given: bool
) -> torch.Tensor:
    heads, shared_heads = model.config.num_attention_heads, model.config.num_key_value_heads
    to_hidden = linear(layer.mlp.down_proj.weight, kept["hidden"], back * kept["out"] / kept["post"])
    inner = sum(linear(p.weight, kept["inner"], to_hidden / 2) for p in (layer.mlp.gate_proj, layer.mlp.up_proj))
    to_mid = back * kept["mid"] / kept["post"] + inner
    attended = kept["mid"] - kept["x"]
    to_z = linear(layer.self_attn.o_proj.weight, kept["z"], to_mid * attended / kept["mid"])
    to_q, to_k, to_v = torch.zeros_like(kept["q"]), torch.zeros_like(kept["k"]), torch.zeros_like(kept["k"])
    for head, share in enumerate(to_z.reshape(len(back), heads, -1).unbind(1)):
        group = head // (heads // shared_heads)
        turned_q, turned_k, value = attention(kept["parts"][head], share, given=given)
        to_v[:, group] += value
        for position in range(len(back)) if not given else ():
            for total, plain, turned, index in (
                (to_q, kept["q"], turned_q, head), (to_k, kept["k"], turned_k, group),
            ):  # fmt: skip
                contributions = turn[position] * plain[position, index]
                total[position, index] += shared(contributions, contributions.sum(1), turned[position])
    normed = linear(layer.self_attn.v_proj.weight, kept["normed"], to_v.flatten(1))
    if not given:
        normed = normed + linear(layer.self_attn.q_proj.weight, kept["normed"], to_q.flatten(1))
        normed = normed + linear(layer.self_attn.k_proj.weight, kept["normed"], to_k.flatten(1))
    return to_mid * kept["x"] / kept["mid"] + normed
