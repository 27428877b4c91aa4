"""An architecture that no layout row describes: the arithmetic of Llama under names of its own."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from transformers import LlamaConfig, PreTrainedModel
from transformers.masking_utils import create_causal_mask
from transformers.modeling_outputs import BaseModelOutput, CausalLMOutput
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.llama.modeling_llama import (
    LlamaRMSNorm,
    LlamaRotaryEmbedding,
    apply_rotary_pos_emb,
    eager_attention_forward,
)


class StrangeConfig(LlamaConfig):
    model_type = "strange"


class Mixer(nn.Module):
    def __init__(self, config: Any, number: int) -> None:
        super().__init__()
        self.config, self.layer_idx, self.is_causal = config, number, True
        self.head_dim = config.head_dim
        self.num_key_value_groups = config.num_attention_heads // config.num_key_value_heads
        self.scaling, self.attention_dropout = self.head_dim**-0.5, 0.0
        query, pair = config.num_attention_heads * self.head_dim, config.num_key_value_heads * self.head_dim
        self.ask = nn.Linear(config.hidden_size, query, bias=False)
        self.offer = nn.Linear(config.hidden_size, pair, bias=False)
        self.carry = nn.Linear(config.hidden_size, pair, bias=False)
        self.merge = nn.Linear(query, config.hidden_size, bias=False)

    def forward(self, stream: torch.Tensor, rotation: Any, mask: Any, **options: Any) -> torch.Tensor:
        split = (*stream.shape[:-1], -1, self.head_dim)
        query, key, value = (f(stream).view(split).transpose(1, 2) for f in (self.ask, self.offer, self.carry))
        query, key = apply_rotary_pos_emb(query, key, *rotation)
        how = self.config._attn_implementation
        attend: Any = eager_attention_forward if how == "eager" else ALL_ATTENTION_FUNCTIONS[how]
        mixed, _ = attend(self, query, key, value, mask, dropout=0.0, scaling=self.scaling, **options)
        return self.merge(mixed.reshape(*stream.shape[:-1], -1))


class Thinker(nn.Module):
    def __init__(self, config: Any) -> None:
        super().__init__()
        self.door = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.wide = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.narrow = nn.Linear(config.intermediate_size, config.hidden_size, bias=False)

    def forward(self, stream: torch.Tensor) -> torch.Tensor:
        return self.narrow(nn.functional.silu(self.door(stream)) * self.wide(stream))


class Floor(nn.Module):
    def __init__(self, config: Any, number: int) -> None:
        super().__init__()
        self.level_one = LlamaRMSNorm(config.hidden_size, config.rms_norm_eps)
        self.mixer = Mixer(config, number)
        self.level_two = LlamaRMSNorm(config.hidden_size, config.rms_norm_eps)
        self.thinker = Thinker(config)

    def forward(self, stream: torch.Tensor, rotation: Any, mask: Any, **options: Any) -> torch.Tensor:
        stream = stream + self.mixer(self.level_one(stream), rotation, mask, **options)
        return stream + self.thinker(self.level_two(stream))


class StrangePreTrained(PreTrainedModel):
    config_class = StrangeConfig
    base_model_prefix = "tower"
    _supports_sdpa = True
    _supports_attention_backend = True


class StrangeModel(StrangePreTrained):
    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.lexicon = nn.Embedding(config.vocab_size, config.hidden_size)
        self.floors = nn.ModuleList([Floor(config, number) for number in range(config.num_hidden_layers)])
        self.roof = LlamaRMSNorm(config.hidden_size, config.rms_norm_eps)
        self.turn = LlamaRotaryEmbedding(config)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        return self.lexicon

    def forward(self, input_ids: Any = None, attention_mask: Any = None, position_ids: Any = None,
                inputs_embeds: Any = None, **options: Any) -> BaseModelOutput:  # fmt: skip
        stream = self.lexicon(input_ids) if inputs_embeds is None else inputs_embeds
        if position_ids is None:
            position_ids = torch.arange(stream.shape[1], device=stream.device)[None]
        mask = create_causal_mask(
            config=self.config, inputs_embeds=stream, attention_mask=attention_mask, past_key_values=None,
            position_ids=position_ids,
        )  # fmt: skip
        rotation = self.turn(stream, position_ids)
        for floor in self.floors:
            stream = floor(stream, rotation, mask)
        return BaseModelOutput(last_hidden_state=self.roof(stream))


class StrangeForCausalLM(StrangePreTrained):
    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.tower = StrangeModel(config)
        self.speaker = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        return self.tower.lexicon

    def get_output_embeddings(self) -> nn.Module:
        return self.speaker

    def forward(self, input_ids: Any = None, attention_mask: Any = None, position_ids: Any = None,
                inputs_embeds: Any = None, **options: Any) -> CausalLMOutput:  # fmt: skip
        found = self.tower(input_ids, attention_mask, position_ids, inputs_embeds)
        return CausalLMOutput(logits=self.speaker(found.last_hidden_state))


NAMES = {
    "model.embed_tokens": "tower.lexicon", "model.layers": "tower.floors", "model.norm": "tower.roof",
    "lm_head": "speaker", "self_attn.q_proj": "mixer.ask", "self_attn.k_proj": "mixer.offer",
    "self_attn.v_proj": "mixer.carry",
    "self_attn.o_proj": "mixer.merge", "mlp.gate_proj": "thinker.door", "mlp.up_proj": "thinker.wide",
    "mlp.down_proj": "thinker.narrow", "post_attention_layernorm": "level_two", "input_layernorm": "level_one",
}  # fmt: skip


def renamed_llama(model: Any) -> StrangeForCausalLM:
    """Return the unseen architecture with the weights of a Llama, so that both must give the same logits."""
    found = model.config.to_dict()
    found.pop("model_type")
    strange = StrangeForCausalLM(StrangeConfig(**found)).to(model.dtype)
    weights = {}
    for name, tensor in model.state_dict().items():
        renamed = name
        for theirs, ours in NAMES.items():
            renamed = renamed.replace(theirs, ours)
        weights[renamed] = tensor.clone()
    strange.load_state_dict(weights)
    return strange.eval()
