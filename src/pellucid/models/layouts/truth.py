"""The project's own constructed models: pre-norm, learned positions, blocks with or without a feed-forward layer."""

from __future__ import annotations

from typing import Any

from pellucid.models.layout import Layout, Stack, heads_of
from pellucid.models.taps import Tap

MODEL_TYPES = ("pellucid-truth",)


def layout(model: Any) -> Layout:
    """Describe a constructed model; a block without neurons has an `mlp.out` of zeros, no `mlp.up` or `mlp.post`."""
    neurons = {"mlp.up": Tap("mlp.up"), "mlp.post": Tap("mlp.down", "input")} if any(model.config.mlp_widths) else {}
    return Layout(type(model).__name__, {"": Stack(
        blocks="blocks", attention="attn", heads=heads_of(model.config), embed_token="tokens", final_norm="norm",
        taps={
            "resid_pre": Tap("", "input"),
            "attn.q": Tap("attn.q_proj", heads="q"),
            "attn.k": Tap("attn.k_proj", heads="q"),
            "attn.v": Tap("attn.v_proj", heads="q"),
            "attn.z": Tap("attn.o_proj", "input", heads="q"),
            "attn.out": Tap("attn"),
            "resid_mid": Tap("mlp_norm", "input", stream=True),
            **neurons,
            "mlp.out": Tap("mlp"),
            "resid_post": Tap(""),
        },
        some_layers=frozenset(neurons),
    )})  # fmt: skip
