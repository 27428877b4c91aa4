"""Post-norm encoders with BERT's modules: BERT, RoBERTa, ELECTRA, DeBERTa-v2."""

from __future__ import annotations

from typing import Any

from pellucid.core.errors import LayoutError
from pellucid.models.layout import Layout, Stack, heads_of
from pellucid.models.taps import Tap

MODEL_TYPES = ("bert", "roberta", "electra", "deberta-v2")


def layout(model: Any) -> Layout:
    """Describe a BERT-like encoder: mid = norm(x + attention(x)), out = norm(mid + feed-forward(mid)).

    RoBERTa counts positions from the padding id on. DeBERTa-v2 does not go through the attention interface, and its
    projections have other names.
    """
    config = model.config
    deberta = config.model_type == "deberta-v2"
    if getattr(config, "conv_kernel_size", 0) > 0:
        raise LayoutError(
            f"{type(model).__name__} adds a convolution between its first two blocks "
            f"(conv_kernel_size={config.conv_kernel_size}), "
            "which no site describes yet; use a DeBERTa without it, such as DeBERTa-v3."
        )
    again = deberta and bool(
        getattr(config, "share_att_key", False)
    )  # the same projections also read the relative positions
    query, key, value = ("query_proj", "key_proj", "value_proj") if deberta else ("query", "key", "value")
    return Layout(type(model).__name__, {"": Stack(
        blocks="encoder.layer", attention="attention.self", heads=heads_of(config), interface=not deberta,
        embed_token="embeddings.word_embeddings", norm="post", mid_norm="attention.output.LayerNorm",
        last_norm="output.LayerNorm",
        taps={
            "resid_pre": Tap("", "input"),
            "attn.q": Tap(f"attention.self.{query}", heads="q", once=again),
            "attn.k": Tap(f"attention.self.{key}", heads="q", once=again),
            "attn.v": Tap(f"attention.self.{value}", heads="q"),
            "attn.z": Tap("attention.output.dense", "input", heads="q"),
            "attn.out": Tap("attention.output.dense"),
            "resid_mid": Tap("attention.output.LayerNorm"),
            "mlp.up": Tap("intermediate.dense"),
            "mlp.post": Tap("output.dense", "input"),
            "mlp.out": Tap("output.dense"),
            "resid_post": Tap(""),
        },
    )}, position_start=config.pad_token_id + 1 if config.model_type == "roberta" else 0)  # fmt: skip
