"""ALBERT: a post-norm encoder whose blocks share modules, so that a block is one call of a module."""

from __future__ import annotations

from typing import Any

from pellucid.models.layout import Layout, Stack, heads_of
from pellucid.models.taps import Tap

MODEL_TYPES = ("albert",)


def layout(model: Any) -> Layout:
    """Describe ALBERT; `embed.token` has the width of the embedding, which is mapped to the hidden width afterwards."""
    return Layout(type(model).__name__, {"": Stack(
        blocks="encoder.albert_layer_groups", shared=_calls(model.config), attention="attention",
        heads=heads_of(model.config),
        embed_token="embeddings.word_embeddings", norm="post", mid_norm="attention.LayerNorm",
        last_norm="full_layer_layer_norm",
        taps={
            "resid_pre": Tap("", "input"),
            "attn.q": Tap("attention.query", heads="q"),
            "attn.k": Tap("attention.key", heads="q"),
            "attn.v": Tap("attention.value", heads="q"),
            "attn.z": Tap("attention.dense", "input", heads="q"),
            "attn.out": Tap("attention.dense"),
            "resid_mid": Tap("attention.LayerNorm"),
            "mlp.up": Tap("ffn"),
            "mlp.post": Tap("ffn_output", "input"),
            "mlp.out": Tap("ffn_output"),
            "resid_post": Tap(""),
        },
    )})  # fmt: skip


def _calls(config: Any) -> tuple[tuple[str, int], ...]:
    """Return, block by block, the path of its module among the groups and which of that module's calls it is."""
    calls: list[tuple[str, int]] = []
    for layer in range(config.num_hidden_layers):
        group = int(layer / (config.num_hidden_layers / config.num_hidden_groups))
        for inner in range(config.inner_group_num):
            path = f"{group}.albert_layers.{inner}"
            calls.append((path, sum(before == path for before, _ in calls)))
    return tuple(calls)
