"""Pre-norm decoders with separate q, k, v and a gated MLP: Llama, Mistral, Qwen 2 and 3, Gemma, Granite."""

from __future__ import annotations

from typing import Any

from pellucid.models.layout import Layout, Stack, heads_of
from pellucid.models.taps import Tap

MODEL_TYPES = ("llama", "mistral", "qwen2", "qwen3", "gemma", "granite")


def layout(model: Any) -> Layout:
    """Describe a Llama-like decoder; Granite scales its contributions and its logits."""
    config = model.config
    return Layout(
        type(model).__name__,
        {
            "": Stack(
                blocks="layers",
                attention="self_attn",
                heads=heads_of(config),
                embed_token="embed_tokens",
                final_norm="norm",
                residual_scale=getattr(config, "residual_multiplier", 1.0),
                taps={
                    "resid_pre": Tap("", "input"),
                    "attn.q": Tap("self_attn.q_proj", heads="q"),
                    "attn.k": Tap("self_attn.k_proj", heads="kv"),
                    "attn.v": Tap("self_attn.v_proj", heads="kv"),
                    "attn.z": Tap("self_attn.o_proj", "input", heads="q"),
                    "attn.out": Tap("self_attn.o_proj"),
                    "resid_mid": Tap("post_attention_layernorm", "input", stream=True),
                    "mlp.gate": Tap("mlp.gate_proj"),
                    "mlp.up": Tap("mlp.up_proj"),
                    "mlp.post": Tap("mlp.down_proj", "input"),
                    "mlp.out": Tap("mlp"),
                    "resid_post": Tap(""),
                },
            )
        },
        logit_scale=1 / getattr(config, "logits_scaling", 1.0),
    )
