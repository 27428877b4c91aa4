"""Falcon: one key/value head, groups or full heads; parallel or sequential blocks; rotations or position biases."""

from __future__ import annotations

from typing import Any

from pellucid.models.layout import Layout, Stack
from pellucid.models.taps import Heads, Tap

MODEL_TYPES = ("falcon",)


def layout(model: Any) -> Layout:
    """Describe Falcon's three kinds of attention and two kinds of block."""
    config = model.config
    query = config.num_attention_heads
    grouped = config.new_decoder_architecture or config.multi_query
    key_value = config.num_kv_heads if config.new_decoder_architecture else 1 if config.multi_query else query
    parallel = config.new_decoder_architecture or config.parallel_attn
    fused: Any = "by_group" if grouped else "per_head"
    return Layout(
        type(model).__name__,
        {
            "": Stack(
                blocks="h",
                attention="self_attention",
                heads=Heads(query, key_value, config.hidden_size // query),
                embed_token="word_embeddings",
                final_norm="ln_f",
                parallel=parallel,
                interface=False,
                taps={
                    "resid_pre": Tap("", "input"),
                    "attn.q": Tap("self_attention.query_key_value", fused=fused, part="q"),
                    "attn.k": Tap("self_attention.query_key_value", fused=fused, part="k"),
                    "attn.v": Tap("self_attention.query_key_value", fused=fused, part="v"),
                    "attn.z": Tap("self_attention.dense", "input", heads="q"),
                    "attn.out": Tap("self_attention.dense"),
                    **({} if parallel else {"resid_mid": Tap("post_attention_layernorm", "input", stream=True)}),
                    "mlp.up": Tap("mlp.dense_h_to_4h"),
                    "mlp.post": Tap("mlp.dense_4h_to_h", "input"),
                    # Parallel blocks add the attention to this very tensor.
                    "mlp.out": Tap("mlp", reused=parallel),
                    "resid_post": Tap(""),
                },
            )
        },
    )
