"""An architecture that no layout row knows, and layouts that are wrong on purpose.

`unseen()` builds a Llama whose modules all have other names; importing this file registers it with transformers.
`BROKEN[name]()` gives a tiny model and a layout for it that the proofs must refuse.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, GenerationMixin, PreTrainedModel
from transformers.masking_utils import create_causal_mask
from transformers.modeling_outputs import BaseModelOutputWithPast, CausalLMOutputWithPast
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.llama.configuration_llama import LlamaConfig
from transformers.models.llama.modeling_llama import (
    LlamaRMSNorm,
    LlamaRotaryEmbedding,
    apply_rotary_pos_emb,
    eager_attention_forward,
)

from pellucid.models.layout import Layout, row_layout
from pellucid.models.taps import Heads, Tap
from tests.tiny_decoders import LLAMA, TINY_DECODERS, factory


class UnseenConfig(LlamaConfig):
    model_type = "unseen"


class Mixer(nn.Module):
    def __init__(self, config: Any) -> None:
        super().__init__()
        self.config, self.is_causal = config, True
        self.width = config.head_dim
        self.num_key_value_groups = config.num_attention_heads // config.num_key_value_heads
        self.val = nn.Linear(config.hidden_size, config.num_key_value_heads * self.width, bias=False)
        self.key_ = nn.Linear(config.hidden_size, config.num_key_value_heads * self.width, bias=False)
        self.query = nn.Linear(config.hidden_size, config.num_attention_heads * self.width, bias=False)
        self.merge = nn.Linear(config.num_attention_heads * self.width, config.hidden_size, bias=False)

    def forward(
        self, stream: torch.Tensor, turns: tuple[torch.Tensor, torch.Tensor], mask: torch.Tensor | None
    ) -> torch.Tensor:
        shape = (*stream.shape[:-1], -1, self.width)
        query, key, value = (part(stream).view(shape).transpose(1, 2) for part in (self.query, self.key_, self.val))
        query, key = apply_rotary_pos_emb(query, key, *turns)
        attend = ALL_ATTENTION_FUNCTIONS.get_interface(self.config._attn_implementation, eager_attention_forward)
        mixed, _ = attend(self, query, key, value, mask, scaling=self.width**-0.5, dropout=0.0)
        merged: torch.Tensor = self.merge(mixed.reshape(*stream.shape[:-1], -1))
        return merged


class Widen(nn.Module):
    def __init__(self, config: UnseenConfig) -> None:
        super().__init__()
        self.first = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.second = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.back = nn.Linear(config.intermediate_size, config.hidden_size, bias=False)

    def forward(self, stream: torch.Tensor) -> torch.Tensor:
        narrowed: torch.Tensor = self.back(self.first(stream) * nn.functional.silu(self.second(stream)))
        return narrowed


class Storey(nn.Module):
    def __init__(self, config: UnseenConfig) -> None:
        super().__init__()
        self.mixer, self.ffn = Mixer(config), Widen(config)
        self.even_a = LlamaRMSNorm(config.hidden_size, config.rms_norm_eps)
        self.even_b = LlamaRMSNorm(config.hidden_size, config.rms_norm_eps)

    def forward(
        self, stream: torch.Tensor, turns: tuple[torch.Tensor, torch.Tensor], mask: torch.Tensor | None
    ) -> torch.Tensor:
        stream = stream + self.mixer(self.even_a(stream), turns, mask)
        return stream + self.ffn(self.even_b(stream))


class UnseenPreTrained(PreTrainedModel):
    config_class = UnseenConfig
    base_model_prefix = "body"
    _supports_sdpa = True
    _supports_attention_backend = True


class UnseenModel(UnseenPreTrained):
    def __init__(self, config: UnseenConfig) -> None:
        super().__init__(config)
        self.tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.torso = nn.ModuleList(Storey(config) for _ in range(config.num_hidden_layers))
        self.crown = LlamaRMSNorm(config.hidden_size, config.rms_norm_eps)
        self.turning = LlamaRotaryEmbedding(config)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        return self.tokens

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
    ) -> BaseModelOutputWithPast:
        stream = self.tokens(input_ids) if inputs_embeds is None else inputs_embeds
        if position_ids is None:
            position_ids = torch.arange(stream.shape[1], device=stream.device)[None]
        mask = create_causal_mask(
            config=self.config, inputs_embeds=stream, attention_mask=attention_mask, past_key_values=None
        )
        turns = self.turning(stream, position_ids)
        for storey in self.torso:
            stream = storey(stream, turns, mask)
        return BaseModelOutputWithPast(last_hidden_state=self.crown(stream))


class UnseenForCausalLM(UnseenPreTrained, GenerationMixin):
    def __init__(self, config: UnseenConfig) -> None:
        super().__init__(config)
        self.body = UnseenModel(config)
        self.speak = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        return self.body.tokens

    def get_output_embeddings(self) -> nn.Module:
        return self.speak

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
    ) -> CausalLMOutputWithPast:
        return CausalLMOutputWithPast(
            logits=self.speak(self.body(input_ids, attention_mask, position_ids, inputs_embeds).last_hidden_state)
        )


AutoConfig.register("unseen", UnseenConfig, exist_ok=True)
AutoModel.register(UnseenConfig, UnseenModel, exist_ok=True)
AutoModelForCausalLM.register(UnseenConfig, UnseenForCausalLM, exist_ok=True)


def unseen(**options: Any) -> Any:
    """Build the renamed Llama with random weights; options change its configuration."""
    return factory(lambda: UnseenForCausalLM(UnseenConfig(**LLAMA | options)))()


def _broken(name: str, **changes: Any) -> Callable[[], tuple[Any, Layout]]:
    def build() -> tuple[Any, Layout]:
        model = TINY_DECODERS[name]()
        layout = row_layout(model)
        assert layout is not None
        stack = layout.stacks[""]
        taps = {**stack.taps, **changes.get("taps", {})}
        wrong = replace(stack, **changes | {"taps": taps})
        return model, replace(layout, stacks={"": wrong}, source="given")

    return build


BROKEN: dict[str, Callable[[], tuple[Any, Layout]]] = {
    "attn.out taps a norm": _broken("llama", taps={"attn.out": Tap("input_layernorm")}),
    "q and k are swapped in the joint projection": _broken(
        "gpt2",
        taps={
            "attn.q": Tap("attn.c_attn", fused="concat", part="k"),
            "attn.k": Tap("attn.c_attn", fused="concat", part="q"),
        },
    ),
    "resid_mid taps the other norm": _broken("llama", taps={"resid_mid": Tap("input_layernorm", "input", stream=True)}),
    "the head count is wrong": _broken("neox-sequential", heads=Heads(8, 8, 4)),
    "heads are laid out one after the other": _broken(
        "neox-sequential",
        taps={f"attn.{part}": Tap("attention.query_key_value", fused="concat", part=part) for part in ("q", "k", "v")},
    ),
    "an edit of resid_mid misses the skip connection": _broken("gpt2", taps={"resid_mid": Tap("ln_2", "input")}),
    "gate and up are swapped": _broken("llama", taps={"mlp.gate": Tap("mlp.up_proj"), "mlp.up": Tap("mlp.gate_proj")}),
    "a module does not exist": _broken("llama", attention="attention"),
}
