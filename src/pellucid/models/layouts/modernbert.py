"""ModernBERT: a pre-norm encoder with fused projections, rotary positions and sliding windows on some layers."""

from __future__ import annotations

from typing import Any

from pellucid.models.layout import Layout, Stack, heads_of
from pellucid.models.taps import Tap

MODEL_TYPES = ("modernbert",)


def layout(model: Any) -> Layout:
    """Describe ModernBERT; the half of `Wi` that goes through the activation is `mlp.gate`."""
    return Layout(type(model).__name__, {"": Stack(
        blocks="layers", attention="attn", heads=heads_of(model.config), embed_token="embeddings.tok_embeddings",
        final_norm="final_norm",
        taps={
            "resid_pre": Tap("", "input"),
            "attn.q": Tap("attn.Wqkv", fused="concat", part="q"),
            "attn.k": Tap("attn.Wqkv", fused="concat", part="k"),
            "attn.v": Tap("attn.Wqkv", fused="concat", part="v"),
            "attn.z": Tap("attn.Wo", "input", heads="q"),
            "attn.out": Tap("attn.Wo"),
            "resid_mid": Tap("mlp_norm", "input", stream=True),
            "mlp.gate": Tap("mlp.Wi", fused="halves", part="gate"),
            "mlp.up": Tap("mlp.Wi", fused="halves", part="up"),
            "mlp.post": Tap("mlp.Wo", "input"),
            "mlp.out": Tap("mlp.Wo"),
            "resid_post": Tap(""),
        },
    )})  # fmt: skip
