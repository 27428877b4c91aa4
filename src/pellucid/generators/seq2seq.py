"""Batches through an encoder-decoder: the prompt goes to the encoder, the answer starts afresh in the decoder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from pellucid.generators.decoding import Row, sum_log_probs


@dataclass
class EncodedState:
    """The encoder's output and its mask [row, position], all decoder ids so far, and the decoder's cache."""

    encoded: Any
    mask: torch.Tensor
    ids: torch.Tensor
    cache: Any = None


class EncoderDecoder:
    """The same steps as `Decoder`, for T5, BART, Marian and their kin; prompts are padded on the right."""

    def __init__(self, model: Any, pad: int) -> None:
        """Look up the token that starts an answer."""
        self.model, self.pad = model, pad
        self.device = model.get_input_embeddings().weight.device
        settings = [getattr(model, "generation_config", None), model.config]
        given = [getattr(source, "decoder_start_token_id", None) for source in settings]
        self.first = next((token for token in given if token is not None), pad)

    def groups(self, rows: Sequence[Row]) -> list[list[Row]]:
        """Split a batch into parts that may run together: the whole."""
        return [list(rows)]

    def start(self, prompts: Sequence[Sequence[int]]) -> tuple[torch.Tensor, EncodedState]:
        """Encode the prompts; return the logits of the first token [row, vocabulary] and the state."""
        state = self._encode(prompts)
        return self._forward(state.ids, state)[:, -1], state

    def step(self, tokens: Sequence[int], going: Sequence[bool], state: EncodedState) -> torch.Tensor:
        """Run one more token per row; return the next logits [row, vocabulary]."""
        # The answers of a batch all have the same length, so finished rows stay within the model's positions.
        ids = torch.tensor(tokens, device=self.device)[:, None]
        state.ids = torch.cat([state.ids, ids], 1)
        return self._forward(ids if state.cache is not None else state.ids, state)[:, -1]

    def score(self, prompts: Sequence[Sequence[int]], endings: Sequence[Sequence[int]]) -> list[float]:
        """Return, teacher-forced, log P(ending | prompt) for each row: the sum over the ending's tokens."""
        state = self._encode(prompts)
        longest = max(len(ending) for ending in endings)
        ids = [[self.first, *ending[:-1], *[self.pad] * (longest - len(ending))] for ending in endings]
        logits = self._forward(torch.tensor(ids, device=self.device), state)
        return [sum_log_probs(values[: len(ending)], ending) for values, ending in zip(logits, endings, strict=True)]

    def _encode(self, prompts: Sequence[Sequence[int]]) -> EncodedState:
        width = max(len(prompt) for prompt in prompts)
        ids = torch.tensor([[*prompt, *[self.pad] * (width - len(prompt))] for prompt in prompts])
        mask = torch.tensor([[1] * len(prompt) + [0] * (width - len(prompt)) for prompt in prompts]).to(self.device)
        encoded = self.model.get_encoder()(input_ids=ids.to(self.device), attention_mask=mask, return_dict=True)
        first = torch.full((len(prompts), 1), self.first, device=self.device)
        return EncodedState(encoded, mask, first)

    def _forward(self, ids: torch.Tensor, state: EncodedState) -> torch.Tensor:
        out = self.model(
            encoder_outputs=state.encoded, attention_mask=state.mask, decoder_input_ids=ids,
            past_key_values=state.cache, use_cache=True, return_dict=True,
        )  # fmt: skip
        state.cache = out.past_key_values
        return out.logits.float()
