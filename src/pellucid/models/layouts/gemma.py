"""Gemma 2 and 3: a norm before and after each sub-layer; the second counts inside the contribution."""

from __future__ import annotations

from typing import Any

from pellucid.models.layout import Layout, Stack, heads_of
from pellucid.models.taps import Tap

MODEL_TYPES = ("gemma2", "gemma3_text")


def layout(model: Any) -> Layout:
    """Describe Gemma 2 and the text model of Gemma 3."""
    return Layout(
        type(model).__name__,
        {
            "": Stack(
                blocks="layers",
                attention="self_attn",
                heads=heads_of(model.config),
                embed_token="embed_tokens",
                final_norm="norm",
                norm="sandwich",
                taps={
                    "resid_pre": Tap("", "input"),
                    "attn.q": Tap("self_attn.q_proj", heads="q"),
                    "attn.k": Tap("self_attn.k_proj", heads="kv"),
                    "attn.v": Tap("self_attn.v_proj", heads="kv"),
                    "attn.z": Tap("self_attn.o_proj", "input", heads="q"),
                    "attn.out_raw": Tap("self_attn.o_proj"),
                    "attn.out": Tap("post_attention_layernorm"),
                    "resid_mid": Tap("pre_feedforward_layernorm", "input", stream=True),
                    "mlp.gate": Tap("mlp.gate_proj"),
                    "mlp.up": Tap("mlp.up_proj"),
                    "mlp.post": Tap("mlp.down_proj", "input"),
                    "mlp.out_raw": Tap("mlp"),
                    "mlp.out": Tap("post_feedforward_layernorm"),
                    "resid_post": Tap(""),
                },
            )
        },
    )
