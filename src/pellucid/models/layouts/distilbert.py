"""DistilBERT: a post-norm encoder whose norms are on the block itself."""

from __future__ import annotations

from typing import Any

from pellucid.models.layout import Layout, Stack, heads_of
from pellucid.models.taps import Tap

MODEL_TYPES = ("distilbert",)


def layout(model: Any) -> Layout:
    """Describe DistilBERT."""
    return Layout(type(model).__name__, {"": Stack(
        blocks="transformer.layer", attention="attention", heads=heads_of(model.config),
        embed_token="embeddings.word_embeddings", norm="post", mid_norm="sa_layer_norm", last_norm="output_layer_norm",
        taps={
            "resid_pre": Tap("", "input"),
            "attn.q": Tap("attention.q_lin", heads="q"),
            "attn.k": Tap("attention.k_lin", heads="q"),
            "attn.v": Tap("attention.v_lin", heads="q"),
            "attn.z": Tap("attention.out_lin", "input", heads="q"),
            "attn.out": Tap("attention.out_lin"),
            "resid_mid": Tap("sa_layer_norm"),
            "mlp.up": Tap("ffn.lin1"),
            "mlp.post": Tap("ffn.lin2", "input"),
            "mlp.out": Tap("ffn.lin2"),
            "resid_post": Tap(""),
        },
    )})  # fmt: skip
