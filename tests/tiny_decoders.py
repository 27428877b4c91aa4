"""Tiny random decoders of every family that has a layout row: two or three layers, width 32, 100 tokens."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import transformers

WIDTH: dict[str, Any] = {"hidden_size": 32, "vocab_size": 100, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
LLAMA: dict[str, Any] = WIDTH | {
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
}
NEOX: dict[str, Any] = {k: v for k, v in LLAMA.items() if k != "num_key_value_heads"}
EXPERTS: dict[str, Any] = LLAMA | {
    "num_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 24,
    "decoder_sparse_step": 1,
}
OPT: dict[str, Any] = WIDTH | {
    "ffn_dim": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
}
OPT |= {"word_embed_proj_dim": 32}
FALCON: dict[str, Any] = WIDTH | {"num_hidden_layers": 2, "num_attention_heads": 4, "max_position_embeddings": 64}
GPT: dict[str, Any] = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64, "vocab_size": 100}
GPT |= {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
SLIDING: dict[str, Any] = LLAMA | {"num_hidden_layers": 3, "head_dim": 8, "sliding_window": 3}
SLIDING |= {"layer_types": ["sliding_attention", "full_attention", "sliding_attention"]}


def _of(model: str, config: str, **options: Any) -> Callable[[], Any]:
    return lambda: getattr(transformers, model)(getattr(transformers, config)(**options))


def _falcon(**options: Any) -> Callable[[], Any]:
    return _of("FalconForCausalLM", "FalconConfig", **FALCON, **options)


BUILD: dict[str, Callable[[], Any]] = {
    "gpt2": _of("GPT2LMHeadModel", "GPT2Config", **GPT),
    "neox-parallel": _of("GPTNeoXForCausalLM", "GPTNeoXConfig", **NEOX, use_parallel_residual=True),
    "neox-sequential": _of("GPTNeoXForCausalLM", "GPTNeoXConfig", **NEOX, use_parallel_residual=False),
    "gptj": _of("GPTJForCausalLM", "GPTJConfig", **GPT, rotary_dim=4),
    "opt": _of("OPTForCausalLM", "OPTConfig", **OPT, do_layer_norm_before=True),
    "opt-post-norm": _of(
        "OPTForCausalLM", "OPTConfig", **OPT | {"word_embed_proj_dim": 16}, do_layer_norm_before=False
    ),
    "bloom": _of("BloomForCausalLM", "BloomConfig", **WIDTH, n_layer=2, n_head=4),
    "falcon-new": _falcon(new_decoder_architecture=True, num_kv_heads=2),
    "falcon-multi-query": _falcon(multi_query=True, parallel_attn=True),
    "falcon-sequential": _falcon(multi_query=False, parallel_attn=False, bias=True),
    "falcon-alibi": _falcon(multi_query=False, parallel_attn=False, alibi=True),
    "llama": _of("LlamaForCausalLM", "LlamaConfig", **LLAMA),
    "llama-tied-bias": _of(
        "LlamaForCausalLM",
        "LlamaConfig",
        **LLAMA | {"num_key_value_heads": 4},
        tie_word_embeddings=True,
        attention_bias=True,
        mlp_bias=True,
    ),
    "mistral-sliding": _of("MistralForCausalLM", "MistralConfig", **LLAMA, sliding_window=3),
    "mixtral": _of("MixtralForCausalLM", "MixtralConfig", **LLAMA, num_local_experts=4, num_experts_per_tok=2),
    "qwen2": _of("Qwen2ForCausalLM", "Qwen2Config", **LLAMA),
    "qwen3": _of("Qwen3ForCausalLM", "Qwen3Config", **LLAMA, head_dim=16),
    "qwen2-moe": _of(
        "Qwen2MoeForCausalLM",
        "Qwen2MoeConfig",
        **EXPERTS | {"num_hidden_layers": 3},
        shared_expert_intermediate_size=40,
        mlp_only_layers=[0],
    ),
    "qwen3-moe": _of("Qwen3MoeForCausalLM", "Qwen3MoeConfig", **EXPERTS, head_dim=8),
    "gemma": _of("GemmaForCausalLM", "GemmaConfig", **LLAMA | {"num_key_value_heads": 1}, head_dim=16),
    "gemma2": _of(
        "Gemma2ForCausalLM",
        "Gemma2Config",
        **SLIDING,
        query_pre_attn_scalar=8,
        attn_logit_softcapping=0.5,
        final_logit_softcapping=2.0,
    ),
    "gemma3": _of("Gemma3ForCausalLM", "Gemma3TextConfig", **SLIDING, query_pre_attn_scalar=8),
    "phi3": _of("Phi3ForCausalLM", "Phi3Config", **LLAMA),
    "olmo2": _of("Olmo2ForCausalLM", "Olmo2Config", **LLAMA),
    "granite": _of(
        "GraniteForCausalLM",
        "GraniteConfig",
        **LLAMA,
        residual_multiplier=0.5,
        embedding_multiplier=3.0,
        logits_scaling=4.0,
        attention_multiplier=0.3,
    ),
}


def factory(build: Callable[[], Any]) -> Callable[[], Any]:
    """Return a function that builds a model in evaluation mode, with telling weights that are always the same."""

    def make() -> Any:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model = build().eval()
            _widen(model)
        if hasattr(model.config, "num_experts_per_tok"):
            model.set_experts_implementation("eager")  # the grouped products lack float64
        return model

    return make


def _widen(model: Any) -> None:
    # Fresh models have norms of 1, biases of 0 and tiny weights, under which wrong layouts look right.
    for name, parameter in model.named_parameters():
        if parameter.ndim == 1:
            parameter.data += 0.2 * torch.randn_like(parameter)
        elif "embed" not in name and "wte" not in name:
            parameter.data = torch.randn_like(parameter) * 0.7 * parameter.shape[-1] ** -0.5


TINY_DECODERS: dict[str, Callable[[], Any]] = {name: factory(build) for name, build in BUILD.items()}
