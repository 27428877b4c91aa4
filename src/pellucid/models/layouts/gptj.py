"""GPT-J: parallel blocks with one shared norm; attention outside transformers' interface."""

from __future__ import annotations

from typing import Any

from pellucid.models.layout import Layout, Stack, heads_of
from pellucid.models.taps import Tap

MODEL_TYPES = ("gptj",)


def layout(model: Any) -> Layout:
    """Describe GPT-J."""
    return Layout(
        type(model).__name__,
        {
            "": Stack(
                blocks="h",
                attention="attn",
                heads=heads_of(model.config),
                embed_token="wte",
                final_norm="ln_f",
                parallel=True,
                interface=False,
                taps={
                    "resid_pre": Tap("", "input"),
                    "attn.q": Tap("attn.q_proj", heads="q"),
                    "attn.k": Tap("attn.k_proj", heads="q"),
                    "attn.v": Tap("attn.v_proj", heads="q"),
                    "attn.z": Tap("attn.out_proj", "input", heads="q"),
                    "attn.out": Tap("attn.out_proj"),
                    "mlp.up": Tap("mlp.fc_in"),
                    "mlp.post": Tap("mlp.fc_out", "input"),
                    "mlp.out": Tap("mlp"),
                    "resid_post": Tap(""),
                },
            )
        },
    )
