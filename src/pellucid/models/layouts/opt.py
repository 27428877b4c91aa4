"""OPT: learned positions, norms before the sub-layers or (350m) after the sums; its feed-forward layer merges rows."""

from __future__ import annotations

from typing import Any

from pellucid.models.layout import Layout, Stack, heads_of
from pellucid.models.taps import Tap

MODEL_TYPES = ("opt",)


def layout(model: Any) -> Layout:
    """Describe OPT in both orders of norm and sum."""
    pre = model.config.do_layer_norm_before
    middle = Tap("final_layer_norm", "input", flat=True, stream=True) if pre else Tap("self_attn_layer_norm")
    return Layout(
        type(model).__name__,
        {
            "": Stack(
                blocks="decoder.layers",
                attention="self_attn",
                heads=heads_of(model.config),
                embed_token="decoder.embed_tokens",
                final_norm="decoder.final_layer_norm" if model.base_model.decoder.final_layer_norm is not None else "",
                norm="pre" if pre else "post",
                mid_norm="" if pre else "self_attn_layer_norm",
                last_norm="" if pre else "final_layer_norm",
                taps={
                    "resid_pre": Tap("", "input"),
                    "attn.q": Tap("self_attn.q_proj", heads="q"),
                    "attn.k": Tap("self_attn.k_proj", heads="q"),
                    "attn.v": Tap("self_attn.v_proj", heads="q"),
                    "attn.z": Tap("self_attn.out_proj", "input", heads="q"),
                    "attn.out": Tap("self_attn.out_proj"),
                    "resid_mid": middle,
                    "mlp.up": Tap("fc1", flat=True),
                    "mlp.post": Tap("fc2", "input", flat=True),
                    "mlp.out": Tap("fc2", flat=True),
                    "resid_post": Tap(""),
                },
            )
        },
        readout="decoder.project_out" if model.base_model.decoder.project_out is not None else "",
    )
