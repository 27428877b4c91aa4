"""The project's own small architecture, for models whose weights are written down instead of trained.

A pre-norm decoder whose norm may be the identity, with learned positions, attention through transformers' interface,
and in each block a feed-forward layer with ReLU or none. Importing this file makes it known to transformers' automatic
classes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn
from transformers import AttentionInterface, AutoConfig, AutoModel, AutoModelForCausalLM, GenerationMixin
from transformers.cache_utils import DynamicCache
from transformers.configuration_utils import PretrainedConfig
from transformers.masking_utils import create_causal_mask
from transformers.modeling_outputs import BaseModelOutputWithPast, CausalLMOutputWithPast
from transformers.modeling_utils import PreTrainedModel

MODEL_TYPE = "pellucid-truth"


class TruthConfig(PretrainedConfig):
    """Sizes of a constructed model.

    `mlp_widths` has the number of neurons of each block, 0 for a block without a feed-forward layer; `norm` is
    "identity" or "layer"; `features` names the dimensions of the residual stream.
    """

    model_type = MODEL_TYPE

    def __init__(
        self,
        vocab_size: int = 8,
        hidden_size: int = 8,
        num_attention_heads: int = 1,
        head_dim: int = 8,
        mlp_widths: Sequence[int] = (0,),
        norm: str = "identity",
        max_position_embeddings: int = 12,
        features: Sequence[str] = (),
        **kwargs: Any,
    ) -> None:
        self.vocab_size, self.hidden_size = vocab_size, hidden_size
        self.num_attention_heads, self.head_dim = num_attention_heads, head_dim
        self.mlp_widths, self.num_hidden_layers = list(mlp_widths), len(mlp_widths)
        self.norm, self.max_position_embeddings, self.features = norm, max_position_embeddings, list(features)
        kwargs.setdefault("tie_word_embeddings", False)
        super().__init__(**kwargs)


def eager_attention_forward(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float,
    **_: Any,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Compute attention step by step: [batch, heads, positions, width] -> [batch, positions, heads, width], pattern."""
    scores = query @ key.transpose(2, 3) * scaling
    pattern = (scores if attention_mask is None else scores + attention_mask).softmax(-1)
    return (pattern @ value).transpose(1, 2).contiguous(), pattern


class TruthAttention(nn.Module):
    """Multi-head attention without biases."""

    def __init__(self, config: TruthConfig, layer: int) -> None:
        super().__init__()
        self.config, self.layer, self.head_dim = config, layer, config.head_dim
        self.is_causal, self.num_key_value_groups, self.scaling = True, 1, config.head_dim**-0.5
        width = config.num_attention_heads * config.head_dim
        self.q_proj, self.k_proj, self.v_proj = (nn.Linear(config.hidden_size, width, bias=False) for _ in range(3))
        self.o_proj = nn.Linear(width, config.hidden_size, bias=False)

    def forward(
        self, hidden_states: torch.Tensor, attention_mask: torch.Tensor | None = None, past_key_values: Any = None
    ) -> torch.Tensor:
        """Return what the heads write together: [batch, positions, dimension]."""
        shape = (*hidden_states.shape[:2], -1, self.head_dim)
        query, key, value = (
            p(hidden_states).view(shape).transpose(1, 2) for p in (self.q_proj, self.k_proj, self.v_proj)
        )
        if past_key_values is not None:
            key, value = past_key_values.update(key, value, self.layer)
        attend: Callable[..., Any] = AttentionInterface().get_interface(
            self.config._attn_implementation or "eager", eager_attention_forward
        )
        mixed, _ = attend(self, query, key, value, attention_mask, scaling=self.scaling, dropout=0.0)
        written: torch.Tensor = self.o_proj(mixed.reshape(*shape[:2], -1))
        return written


class TruthMLP(nn.Module):
    """Neurons: down(ReLU(up(x)))."""

    def __init__(self, width: int, neurons: int) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(width, neurons), nn.Linear(neurons, width, bias=False)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """Return what the neurons write together: [batch, positions, dimension]."""
        written: torch.Tensor = self.down(torch.relu(self.up(hidden_states)))
        return written


class NoMLP(nn.Module):
    """Stands where a block has no feed-forward layer, and writes nothing."""

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """Return zeros."""
        return torch.zeros_like(hidden_states)


def _norm(config: TruthConfig) -> nn.Module:
    return nn.LayerNorm(config.hidden_size) if config.norm == "layer" else nn.Identity()


class TruthBlock(nn.Module):
    """x + attention(norm(x)), then + MLP(norm(...))."""

    def __init__(self, config: TruthConfig, layer: int) -> None:
        super().__init__()
        neurons = config.mlp_widths[layer]
        self.attn_norm, self.attn = _norm(config), TruthAttention(config, layer)
        self.mlp_norm, self.mlp = _norm(config), TruthMLP(config.hidden_size, neurons) if neurons else NoMLP()

    def forward(
        self, hidden_states: torch.Tensor, attention_mask: torch.Tensor | None = None, past_key_values: Any = None
    ) -> torch.Tensor:
        """Return the residual stream behind the block."""
        hidden_states = hidden_states + self.attn(self.attn_norm(hidden_states), attention_mask, past_key_values)
        return hidden_states + self.mlp(self.mlp_norm(hidden_states))


class TruthPreTrainedModel(PreTrainedModel):
    """What transformers has to know of the architecture."""

    config_class = TruthConfig
    base_model_prefix = "model"
    _supports_sdpa = True
    _supports_attention_backend = True
    _no_split_modules = ["TruthBlock"]  # noqa: RUF012 - transformers declares it as a list


class TruthModel(TruthPreTrainedModel):
    """Token and position embeddings, the blocks and the final norm."""

    def __init__(self, config: TruthConfig) -> None:
        super().__init__(config)
        self.tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.positions = nn.Embedding(config.max_position_embeddings, config.hidden_size)
        self.blocks = nn.ModuleList([TruthBlock(config, layer) for layer in range(config.num_hidden_layers)])
        self.norm = _norm(config)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        """Return the token embedding."""
        return self.tokens

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replace the token embedding."""
        self.tokens = value

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        past_key_values: Any = None,
        inputs_embeds: torch.Tensor | None = None,
        use_cache: bool = False,
        **_: Any,
    ) -> BaseModelOutputWithPast:
        """Return the final residual stream behind the norm."""
        embedded = self.tokens(input_ids) if inputs_embeds is None else inputs_embeds
        if use_cache and past_key_values is None:
            past_key_values = DynamicCache(config=self.config)
        if position_ids is None:
            seen = past_key_values.get_seq_length() if past_key_values is not None else 0
            position_ids = torch.arange(seen, seen + embedded.shape[1], device=embedded.device)[None]
        mask = create_causal_mask(
            config=self.config, inputs_embeds=embedded, attention_mask=attention_mask, past_key_values=past_key_values,
            position_ids=position_ids,
        )  # fmt: skip
        hidden = embedded + self.positions(position_ids)
        for block in self.blocks:
            hidden = block(hidden, mask, past_key_values)
        return BaseModelOutputWithPast(last_hidden_state=self.norm(hidden), past_key_values=past_key_values)


class TruthForCausalLM(TruthPreTrainedModel, GenerationMixin):
    """The model with an unembedding of its own."""

    def __init__(self, config: TruthConfig) -> None:
        super().__init__(config)
        self.model = TruthModel(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        """Return the token embedding."""
        return self.model.tokens

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replace the token embedding."""
        self.model.tokens = value

    def get_output_embeddings(self) -> nn.Module:
        """Return the unembedding."""
        return self.lm_head

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        past_key_values: Any = None,
        inputs_embeds: torch.Tensor | None = None,
        use_cache: bool = False,
        **_: Any,
    ) -> CausalLMOutputWithPast:
        """Return the logits of every position."""
        output = self.model(input_ids, attention_mask, position_ids, past_key_values, inputs_embeds, use_cache)
        return CausalLMOutputWithPast(
            logits=self.lm_head(output.last_hidden_state), past_key_values=output.past_key_values
        )


AutoConfig.register(MODEL_TYPE, TruthConfig, exist_ok=True)
AutoModel.register(TruthConfig, TruthModel, exist_ok=True)
AutoModelForCausalLM.register(TruthConfig, TruthForCausalLM, exist_ok=True)
