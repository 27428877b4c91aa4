"""GPT-NeoX and Pythia: q, k and v of each head side by side in one projection; blocks parallel or sequential."""

from __future__ import annotations

from typing import Any

from pellucid.models.layout import Layout, Stack, heads_of
from pellucid.models.taps import Tap

MODEL_TYPES = ("gpt_neox",)


def layout(model: Any) -> Layout:
    """Describe GPT-NeoX; only sequential blocks have a residual between attention and feed-forward layer."""
    parallel = model.config.use_parallel_residual
    middle = {} if parallel else {"resid_mid": Tap("post_attention_layernorm", "input", stream=True)}
    return Layout(
        type(model).__name__,
        {
            "": Stack(
                blocks="layers",
                attention="attention",
                heads=heads_of(model.config),
                embed_token="embed_in",
                final_norm="final_layer_norm",
                parallel=parallel,
                taps={
                    "resid_pre": Tap("", "input"),
                    "attn.q": Tap("attention.query_key_value", fused="per_head", part="q"),
                    "attn.k": Tap("attention.query_key_value", fused="per_head", part="k"),
                    "attn.v": Tap("attention.query_key_value", fused="per_head", part="v"),
                    "attn.z": Tap("attention.dense", "input", heads="q"),
                    "attn.out": Tap("attention.dense"),
                    **middle,
                    "mlp.up": Tap("mlp.dense_h_to_4h"),
                    "mlp.post": Tap("mlp.dense_4h_to_h", "input"),
                    "mlp.out": Tap("mlp"),
                    "resid_post": Tap(""),
                },
            )
        },
    )
