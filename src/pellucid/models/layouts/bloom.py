"""BLOOM: position biases in the scores; the residual is added inside the attention and feed-forward modules."""

from __future__ import annotations

from typing import Any

from pellucid.core.errors import LayoutError
from pellucid.models.layout import Layout, Stack, heads_of
from pellucid.models.taps import Tap

MODEL_TYPES = ("bloom",)


def layout(model: Any) -> Layout:
    """Describe BLOOM; contributions are tapped at the dense layers, before the residual is added.

    Raises:
        LayoutError: the residual is taken after the norms, which no published checkpoint does.
    """
    if model.config.apply_residual_connection_post_layernorm:
        raise LayoutError(
            "BLOOM with apply_residual_connection_post_layernorm adds normed inputs, so its contributions have no sum; "
            "use a checkpoint without it."
        )
    return Layout(
        type(model).__name__,
        {
            "": Stack(
                blocks="h",
                attention="self_attention",
                heads=heads_of(model.config, query=model.config.n_head),
                embed_token="word_embeddings",
                final_norm="ln_f",
                interface=False,
                taps={
                    "resid_pre": Tap("", "input"),
                    "attn.q": Tap("self_attention.query_key_value", fused="per_head", part="q"),
                    "attn.k": Tap("self_attention.query_key_value", fused="per_head", part="k"),
                    "attn.v": Tap("self_attention.query_key_value", fused="per_head", part="v"),
                    "attn.z": Tap("self_attention.dense", "input", heads="q"),
                    "attn.out": Tap("self_attention.dense"),
                    "resid_mid": Tap("post_attention_layernorm", "input", stream=True),
                    "mlp.up": Tap("mlp.dense_h_to_4h"),
                    "mlp.post": Tap("mlp.dense_4h_to_h", "input"),
                    "mlp.out": Tap("mlp.dense_4h_to_h"),
                    "resid_post": Tap(""),
                },
            )
        },
    )
