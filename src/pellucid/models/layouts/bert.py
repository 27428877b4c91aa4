"""Post-norm encoders with BERT's modules: BERT, RoBERTa, ELECTRA."""

from __future__ import annotations

from typing import Any

from pellucid.models.layout import Layout, Stack, heads_of
from pellucid.models.taps import Tap

MODEL_TYPES = ("bert", "roberta", "electra")


def layout(model: Any) -> Layout:
    """Describe a BERT-like encoder: mid = norm(x + attention(x)), out = norm(mid + feed-forward(mid))."""
    config = model.config
    return Layout(type(model).__name__, {"": Stack(
        blocks="encoder.layer", attention="attention.self", heads=heads_of(config),
        embed_token="embeddings.word_embeddings", norm="post", mid_norm="attention.output.LayerNorm", last_norm="output.LayerNorm",
        taps={
            "resid_pre": Tap("", "input"),
            "attn.q": Tap("attention.self.query", heads="q"),
            "attn.k": Tap("attention.self.key", heads="q"),
            "attn.v": Tap("attention.self.value", heads="q"),
            "attn.z": Tap("attention.output.dense", "input", heads="q"),
            "attn.out": Tap("attention.output.dense"),
            "resid_mid": Tap("attention.output.LayerNorm"),
            "mlp.up": Tap("intermediate.dense"),
            "mlp.post": Tap("output.dense", "input"),
            "mlp.out": Tap("output.dense"),
            "resid_post": Tap(""),
        },
    )}, position_start=config.pad_token_id + 1 if config.model_type == "roberta" else 0)  # fmt: skip
