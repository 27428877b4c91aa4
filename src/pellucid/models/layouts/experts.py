"""Mixtures of experts with Llama's attention: Mixtral, Qwen 2 and 3 MoE."""

from __future__ import annotations

from typing import Any

from pellucid.models.layout import Layout, Stack, has_submodule, heads_of
from pellucid.models.taps import Tap

MODEL_TYPES = ("mixtral", "qwen2_moe", "qwen3_moe")


def layout(model: Any) -> Layout:
    """Describe a mixture of experts; `router` holds its logits over experts, `mlp.out` the sum with shared experts.

    Some layers may be dense, and only they have `mlp.gate`, `mlp.up` and `mlp.post`: experts are computed jointly.
    """
    dense = {"mlp.gate": Tap("mlp.gate_proj"), "mlp.up": Tap("mlp.up_proj"), "mlp.post": Tap("mlp.down_proj", "input")}
    mixed = any(has_submodule(block, "mlp.gate_proj") for block in model.base_model.layers)
    return Layout(
        type(model).__name__,
        {
            "": Stack(
                blocks="layers",
                attention="self_attn",
                heads=heads_of(model.config),
                embed_token="embed_tokens",
                final_norm="norm",
                some_layers=frozenset({"router", *dense}) if mixed else frozenset(),
                taps={
                    "resid_pre": Tap("", "input"),
                    "attn.q": Tap("self_attn.q_proj", heads="q"),
                    "attn.k": Tap("self_attn.k_proj", heads="kv"),
                    "attn.v": Tap("self_attn.v_proj", heads="kv"),
                    "attn.z": Tap("self_attn.o_proj", "input", heads="q"),
                    "attn.out": Tap("self_attn.o_proj"),
                    "resid_mid": Tap("post_attention_layernorm", "input", stream=True),
                    # The router chooses inside its module, so its logits are caught where they are computed.
                    "router": Tap("mlp.gate", call="linear", flat=True),
                    **(dense if mixed else {}),
                    "mlp.out": Tap("mlp"),
                    "resid_post": Tap(""),
                },
            )
        },
    )
