"""BART and Marian: encoder-decoders with post-norm blocks."""

from __future__ import annotations

from typing import Any

from pellucid.models.layout import Layout, Stack
from pellucid.models.taps import Heads, Tap

MODEL_TYPES = ("bart", "marian")


def layout(model: Any) -> Layout:
    """Describe BART and Marian; `resid_mid` is what the feed-forward layer reads, so it follows the cross attention."""
    config = model.config
    stacks = {}
    for stack, count in (("encoder", config.encoder_attention_heads), ("decoder", config.decoder_attention_heads)):
        decoder = stack == "decoder"
        taps = {
            "resid_pre": Tap("", "input"),
            **_attention("attn", "self_attn"),
            **(_attention("cross_attn", "encoder_attn") if decoder else {}),
            "resid_mid": Tap("encoder_attn_layer_norm" if decoder else "self_attn_layer_norm"),
            "mlp.up": Tap("fc1"),
            "mlp.post": Tap("fc2", "input"),
            "mlp.out": Tap("fc2"),
            "resid_post": Tap(""),
        }
        stacks[stack] = Stack(
            blocks=f"{stack}.layers", taps=taps, attention="self_attn", heads=Heads(count, count,
            config.d_model // count),
            embed_token=f"{stack}.embed_tokens", norm="post", mid_norm="self_attn_layer_norm",
            last_norm="final_layer_norm",
            cross_attention="encoder_attn" if decoder else "",
            cross_norm="encoder_attn_layer_norm" if decoder else "", root=stack,
        )  # fmt: skip
    return Layout(type(model).__name__, stacks, position_ids=False)


def _attention(part: str, path: str) -> dict[str, Tap]:
    return {
        f"{part}.q": Tap(f"{path}.q_proj", heads="q"),
        f"{part}.k": Tap(f"{path}.k_proj", heads="q"),
        f"{part}.v": Tap(f"{path}.v_proj", heads="q"),
        f"{part}.z": Tap(f"{path}.out_proj", "input", heads="q"),
        f"{part}.out": Tap(f"{path}.out_proj"),
    }
