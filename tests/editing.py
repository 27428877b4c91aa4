"""Small random models with a tokenizer, facts and texts for the tests of editors."""

from __future__ import annotations

import functools
from typing import Any

import torch
import transformers

import pellucid
from pellucid.core.facts import Fact
from tests.tokenizers_for_tests import byte_level

FACTS = (
    Fact("{} lives in", "Alice", "Rome"),
    Fact("The home of Bob is in", "Bob", "the city of Oslo"),
    Fact("{} plays the", "Carol Jones", "harp"),
)
PREFIXES = ("It rained.", "Then, at noon, all was well.")
TEXTS = tuple(
    f"{a} {b} {c}." for a in ("The cat", "A dog", "My friend") for b in ("saw", "ate") for c in ("fish", "it")
)


@functools.cache
def _tokenizer() -> Any:
    return byte_level()


@functools.cache
def _state(kind: str) -> Any:
    common: dict[str, Any] = {"vocab_size": len(_tokenizer()), "initializer_range": 0.3}
    torch.manual_seed(3)
    if kind == "gpt2":
        config: Any = transformers.GPT2Config(n_embd=32, n_layer=3, n_head=4, n_positions=96, **common)
        return transformers.GPT2LMHeadModel(config)
    sizes: dict[str, Any] = {
        "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4, **common,
    }  # fmt: skip
    if kind == "neox-parallel":
        return transformers.GPTNeoXForCausalLM(transformers.GPTNeoXConfig(use_parallel_residual=True, **sizes))
    sizes["num_key_value_heads"] = 2
    if kind == "gemma2":
        return transformers.Gemma2ForCausalLM(transformers.Gemma2Config(head_dim=8, **sizes))
    if kind == "mixtral":
        return transformers.MixtralForCausalLM(transformers.MixtralConfig(num_local_experts=2, **sizes))
    return transformers.LlamaForCausalLM(transformers.LlamaConfig(**sizes))


@functools.cache
def editable(kind: str = "llama", dtype: torch.dtype = torch.float64) -> pellucid.Subject:
    """Return a random model of three layers with a byte-level tokenizer; never changed by a test."""
    model = type(_state(kind))(_state(kind).config).to(dtype)
    model.load_state_dict(_state(kind).state_dict())
    return pellucid.load(model.eval(), _tokenizer())


def keys_of(subject: pellucid.Subject, layer: int, ids: tuple[int, ...]) -> torch.Tensor:
    """Return what the feed-forward matrix of a layer is given on a text [positions, neuron], by a plain hook."""
    found: list[torch.Tensor] = []
    module = matrix_of(subject, layer)
    handle = module.register_forward_pre_hook(lambda _, args: found.append(args[0].detach()))
    with torch.no_grad():
        subject.model(input_ids=torch.tensor([ids]))
    handle.remove()
    return found[0].reshape(len(ids), -1)


def values_of(subject: pellucid.Subject, layer: int, ids: tuple[int, ...]) -> torch.Tensor:
    """Return what the feed-forward matrix of a layer gives on a text [positions, dimension], by a plain hook."""
    found: list[torch.Tensor] = []
    handle = matrix_of(subject, layer).register_forward_hook(lambda *call: found.append(call[2].detach()))
    with torch.no_grad():
        subject.model(input_ids=torch.tensor([ids]))
    handle.remove()
    return found[0].reshape(len(ids), -1)


def matrix_of(subject: pellucid.Subject, layer: int) -> Any:
    """Return the module of the feed-forward matrix of a layer."""
    model = subject.model
    if hasattr(model, "transformer"):
        return model.transformer.h[layer].mlp.c_proj
    if hasattr(model, "gpt_neox"):
        return model.gpt_neox.layers[layer].mlp.dense_4h_to_h
    return model.model.layers[layer].mlp.down_proj
