"""Tiny random models for the generator tests, behind the attributes of a Subject that a generator uses."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import Any

import torch
import transformers

from pellucid.core.tokens import Tokens
from tests.tokenizers_for_tests import byte_level

PLAIN = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
ROTARY = {**PLAIN, "num_key_value_heads": 2, "max_position_embeddings": 128, "head_dim": 8}
FAMILIES: dict[str, tuple[type, dict[str, Any]]] = {
    "llama": (transformers.LlamaConfig, ROTARY),
    "mistral, a window of 8": (transformers.MistralConfig, {**ROTARY, "sliding_window": 8}),
    "gemma 2, a window of 8": (transformers.Gemma2Config, {**ROTARY, "sliding_window": 8}),
    "gpt2": (transformers.GPT2Config, {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 128}),
    "opt": (
        transformers.OPTConfig,
        {**PLAIN, "ffn_dim": 48, "word_embed_proj_dim": 32, "max_position_embeddings": 128},
    ),
    "bloom": (transformers.BloomConfig, {"hidden_size": 32, "n_layer": 2, "n_head": 4}),
    "mamba": (transformers.MambaConfig, {"hidden_size": 32, "num_hidden_layers": 2, "state_size": 4}),
}


@dataclass
class StandIn:
    """What a generator needs of a Subject, and nothing else."""

    model: Any
    tokenizer: Any
    kind: str = "decoder"
    name: str = "tiny"
    revision: str = ""
    capabilities: frozenset[str] = frozenset({"generate"})
    edits: tuple[Any, ...] = ()
    max_length: int | None = 128
    lock: Any = field(default_factory=threading.RLock)

    def encode(self, prompt: Any) -> Tokens:
        if isinstance(prompt, str):
            ids = self.tokenizer(prompt)["input_ids"]
        else:
            text = self.tokenizer.apply_chat_template(prompt, tokenize=False, add_generation_prompt=True)
            ids = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return Tokens(tuple(ids), ("",) * len(ids), (False,) * len(ids))


def tiny(family: str = "llama", dtype: torch.dtype = torch.float64, **changes: Any) -> StandIn:
    """Return a tiny random model whose logits are far apart, so that greedy choices are no accident of rounding."""
    kind, settings = FAMILIES[family]
    tokenizer = byte_level()
    torch.manual_seed(3)
    tokenizer.eos_token = None
    named = {"bos_token_id": None, "eos_token_id": None, "pad_token_id": 0, "vocab_size": len(tokenizer)}
    config = kind(**{**named, **settings, **changes})
    model = transformers.AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(0, 0.3)
    model.generation_config.eos_token_id = None
    limit = getattr(config, "max_position_embeddings", None)
    return StandIn(model.to(dtype).eval(), tokenizer, max_length=limit if isinstance(limit, int) else None)


def tiny_seq2seq(kind: str) -> StandIn:
    """Return a tiny random T5 or BART."""
    tokenizer = byte_level()
    tokenizer.eos_token = None
    torch.manual_seed(3)
    if kind == "t5":
        config: Any = transformers.T5Config(
            vocab_size=len(tokenizer), d_model=32, d_kv=8, d_ff=48, num_layers=2, num_heads=4,
            pad_token_id=0, eos_token_id=None, dropout_rate=0.1,
        )  # fmt: skip
        config.decoder_start_token_id = 0
        model: Any = transformers.T5ForConditionalGeneration(config)
    else:
        config = transformers.BartConfig(
            vocab_size=len(tokenizer), d_model=32, encoder_layers=2, decoder_layers=2, encoder_ffn_dim=48,
            decoder_ffn_dim=48, encoder_attention_heads=4, decoder_attention_heads=4, max_position_embeddings=64,
            pad_token_id=0, bos_token_id=None, eos_token_id=None, decoder_start_token_id=1, forced_eos_token_id=None,
        )  # fmt: skip
        model = transformers.BartForConditionalGeneration(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(0, 0.3)
    return StandIn(model.double().eval(), tokenizer, kind="encoder-decoder")
