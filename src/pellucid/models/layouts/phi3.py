"""Phi-3: q, k and v in one projection, gate and up in another."""

from __future__ import annotations

from typing import Any

from pellucid.models.layout import Layout, Stack, heads_of
from pellucid.models.taps import Tap

MODEL_TYPES = ("phi3",)


def layout(model: Any) -> Layout:
    """Describe Phi-3."""
    return Layout(
        type(model).__name__,
        {
            "": Stack(
                blocks="layers",
                attention="self_attn",
                heads=heads_of(model.config),
                embed_token="embed_tokens",
                final_norm="norm",
                taps={
                    "resid_pre": Tap("", "input"),
                    "attn.q": Tap("self_attn.qkv_proj", fused="concat", part="q"),
                    "attn.k": Tap("self_attn.qkv_proj", fused="concat", part="k"),
                    "attn.v": Tap("self_attn.qkv_proj", fused="concat", part="v"),
                    "attn.z": Tap("self_attn.o_proj", "input", heads="q"),
                    "attn.out": Tap("self_attn.o_proj"),
                    "resid_mid": Tap("post_attention_layernorm", "input", stream=True),
                    "mlp.gate": Tap("mlp.gate_up_proj", fused="halves", part="gate"),
                    "mlp.up": Tap("mlp.gate_up_proj", fused="halves", part="up"),
                    "mlp.post": Tap("mlp.down_proj", "input"),
                    "mlp.out": Tap("mlp"),
                    "resid_post": Tap(""),
                },
            )
        },
    )
