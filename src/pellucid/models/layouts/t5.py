"""T5: encoder-decoder with relative position biases and pre-norm sub-layers."""

from __future__ import annotations

from typing import Any

from pellucid.models.layout import Layout, Stack
from pellucid.models.taps import Heads, Tap

MODEL_TYPES = ("t5",)


def layout(model: Any) -> Layout:
    """Describe T5; the feed-forward layer is the last sub-layer of a block, and `resid_mid` its input.

    `T5EncoderModel` is the encoder alone: one stack.
    """
    config = model.config
    heads = Heads(config.num_heads, config.num_heads, config.d_kv)
    gated = config.is_gated_act
    stacks = {}
    alone = not hasattr(model.base_model, "decoder")
    for stack in ("encoder",) if alone else ("encoder", "decoder"):
        taps = {
            "resid_pre": Tap("", "input"),
            **_attention("attn", "layer.0.SelfAttention"),
            "resid_mid": Tap("layer.-1", "input"),
            "mlp.up": Tap("layer.-1.DenseReluDense.wi_1" if gated else "layer.-1.DenseReluDense.wi"),
            "mlp.post": Tap("layer.-1.DenseReluDense.wo", "input"),
            "mlp.out": Tap("layer.-1.DenseReluDense"),
            "resid_post": Tap(""),
        }
        if gated:
            taps["mlp.gate"] = Tap("layer.-1.DenseReluDense.wi_0")
        if stack == "decoder":
            taps |= _attention("cross_attn", "layer.1.EncDecAttention")
        stacks["" if alone else stack] = Stack(
            blocks=f"{stack}.block", taps=taps, attention="layer.0.SelfAttention", heads=heads,
            embed_token=f"{stack}.embed_tokens", root=stack,
            cross_attention="layer.1.EncDecAttention" if stack == "decoder" else "",
            final_norm=f"{stack}.final_layer_norm",
        )  # fmt: skip
    scaled = getattr(config, "scale_decoder_outputs", config.tie_word_embeddings)
    return Layout(type(model).__name__, stacks, position_ids=False, logit_scale=config.d_model**-0.5 if scaled else 1.0)


def _attention(part: str, path: str) -> dict[str, Tap]:
    return {
        f"{part}.q": Tap(f"{path}.q", heads="q"),
        f"{part}.k": Tap(f"{path}.k", heads="q"),
        f"{part}.v": Tap(f"{path}.v", heads="q"),
        f"{part}.z": Tap(f"{path}.o", "input", heads="q"),
        f"{part}.out": Tap(f"{path}.o"),
    }
