"""GPT-2: pre-norm, q, k and v in one projection, learned positions."""

from __future__ import annotations

from typing import Any

from pellucid.models.layout import Layout, Stack, heads_of
from pellucid.models.taps import Tap

MODEL_TYPES = ("gpt2",)


def layout(model: Any) -> Layout:
    """Describe GPT-2."""
    return Layout(type(model).__name__, {"": Stack(
        blocks="h", attention="attn", heads=heads_of(model.config), embed_token="wte", final_norm="ln_f",
        taps={
            "resid_pre": Tap("", "input"),
            "attn.q": Tap("attn.c_attn", fused="concat", part="q"),
            "attn.k": Tap("attn.c_attn", fused="concat", part="k"),
            "attn.v": Tap("attn.c_attn", fused="concat", part="v"),
            "attn.z": Tap("attn.c_proj", "input", heads="q"),
            "attn.out": Tap("attn"),
            "resid_mid": Tap("ln_2", "input", stream=True),
            "mlp.up": Tap("mlp.c_fc"),
            "mlp.post": Tap("mlp.c_proj", "input"),
            "mlp.out": Tap("mlp"),
            "resid_post": Tap(""),
        },
    )})  # fmt: skip
