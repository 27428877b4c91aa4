"""Tiny random encoders and encoder-decoders, one for each shape that the layouts describe.

TINY_ENCODERS maps a name to a function that builds the model: random weights from a fixed seed, evaluation mode,
float32.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import transformers

VOCABULARY = 100
BERT: dict[str, Any] = {
    "vocab_size": VOCABULARY, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 64, "num_labels": 3,
}  # fmt: skip
DISTILBERT: dict[str, Any] = {
    "vocab_size": VOCABULARY, "dim": 32, "hidden_dim": 64, "n_layers": 2, "n_heads": 4, "max_position_embeddings": 64,
    "num_labels": 3,
}  # fmt: skip
SPECIAL: dict[str, Any] = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
MODERNBERT: dict[str, Any] = {
    **BERT, **SPECIAL, "cls_token_id": 1, "sep_token_id": 2, "num_hidden_layers": 3, "global_attn_every_n_layers": 2,
    "local_attention": 4,
}  # fmt: skip
DEBERTA: dict[str, Any] = {
    **BERT, "relative_attention": True, "pos_att_type": ["c2p", "p2c"], "position_buckets": 8,
    "norm_rel_ebd": "layer_norm",
    "position_biased_input": False, "share_att_key": True, "type_vocab_size": 0, "pooler_hidden_size": 32,
}  # fmt: skip
T5: dict[str, Any] = {
    "vocab_size": VOCABULARY, "d_model": 32, "d_ff": 64, "d_kv": 8, "num_layers": 2, "num_heads": 4,
    "decoder_start_token_id": 0,
}  # fmt: skip
BART: dict[str, Any] = {
    "vocab_size": VOCABULARY, "d_model": 32, "encoder_layers": 3, "decoder_layers": 2, "encoder_attention_heads": 4,
    "decoder_attention_heads": 2, "encoder_ffn_dim": 64, "decoder_ffn_dim": 48, "max_position_embeddings": 64,
    "decoder_start_token_id": 2, "forced_eos_token_id": None, **SPECIAL,
}  # fmt: skip


def tiny(model: str, config: str, **options: Any) -> Callable[[], Any]:
    def build() -> Any:
        state = torch.random.get_rng_state()
        torch.manual_seed(0)
        built = getattr(transformers, model)(getattr(transformers, config)(**options))
        for parameter in built.parameters():
            # Norms at 1 and biases at 0 would hide mistakes, so every weight is moved but the fixed positions of
            # Marian.
            if parameter.requires_grad:
                parameter.data.add_(torch.randn_like(parameter) * 0.05)
        torch.random.set_rng_state(state)
        return built.eval()

    return build


TINY_ENCODERS: dict[str, Callable[[], Any]] = {
    "bert": tiny("BertModel", "BertConfig", **BERT),
    "bert-classifier": tiny("BertForSequenceClassification", "BertConfig", **BERT),
    "bert-masked-lm": tiny("BertForMaskedLM", "BertConfig", **BERT),
    "roberta": tiny("RobertaModel", "RobertaConfig", **BERT, pad_token_id=1),
    "roberta-classifier": tiny("RobertaForSequenceClassification", "RobertaConfig", **BERT, pad_token_id=1),
    "roberta-masked-lm": tiny("RobertaForMaskedLM", "RobertaConfig", **BERT, pad_token_id=1),
    "distilbert": tiny("DistilBertModel", "DistilBertConfig", **DISTILBERT),
    "distilbert-classifier": tiny("DistilBertForSequenceClassification", "DistilBertConfig", **DISTILBERT),
    "distilbert-masked-lm": tiny("DistilBertForMaskedLM", "DistilBertConfig", **DISTILBERT),
    "albert": tiny("AlbertModel", "AlbertConfig", **{**BERT, "num_hidden_layers": 3}, embedding_size=16),
    "albert-classifier": tiny(
        "AlbertForSequenceClassification", "AlbertConfig", **{**BERT, "num_hidden_layers": 3}, embedding_size=16
    ),
    "albert-masked-lm": tiny(
        "AlbertForMaskedLM", "AlbertConfig", **{**BERT, "num_hidden_layers": 3}, embedding_size=16
    ),
    "albert-groups": tiny(
        "AlbertForMaskedLM",
        "AlbertConfig",
        **{**BERT, "num_hidden_layers": 4},
        embedding_size=16,
        num_hidden_groups=2,
        inner_group_num=2,
    ),
    "electra": tiny("ElectraModel", "ElectraConfig", **BERT, embedding_size=16),
    "electra-classifier": tiny("ElectraForSequenceClassification", "ElectraConfig", **BERT, embedding_size=16),
    "electra-masked-lm": tiny("ElectraForMaskedLM", "ElectraConfig", **BERT, embedding_size=16),
    "deberta-v2": tiny("DebertaV2Model", "DebertaV2Config", **DEBERTA),
    "deberta-v2-classifier": tiny("DebertaV2ForSequenceClassification", "DebertaV2Config", **DEBERTA),
    "deberta-v2-masked-lm": tiny("DebertaV2ForMaskedLM", "DebertaV2Config", **{**DEBERTA, "share_att_key": False}),
    "modernbert": tiny("ModernBertModel", "ModernBertConfig", **MODERNBERT),
    "modernbert-classifier": tiny(
        "ModernBertForSequenceClassification", "ModernBertConfig", **MODERNBERT, classifier_pooling="mean"
    ),
    "modernbert-masked-lm": tiny("ModernBertForMaskedLM", "ModernBertConfig", **MODERNBERT),
    "t5": tiny("T5ForConditionalGeneration", "T5Config", **T5),
    "t5-gated": tiny(
        "T5ForConditionalGeneration", "T5Config", **T5, feed_forward_proj="gated-gelu", tie_word_embeddings=False
    ),
    "t5-encoder": tiny("T5EncoderModel", "T5Config", **T5),
    "bart": tiny("BartForConditionalGeneration", "BartConfig", **BART, scale_embedding=True),
    "bart-without-head": tiny("BartModel", "BartConfig", **BART),
    "marian": tiny("MarianMTModel", "MarianConfig", **BART, scale_embedding=True),
    "marian-two-vocabularies": tiny(
        "MarianMTModel",
        "MarianConfig",
        **BART,
        share_encoder_decoder_embeddings=False,
        decoder_vocab_size=90,
        tie_word_embeddings=False,
    ),
}
