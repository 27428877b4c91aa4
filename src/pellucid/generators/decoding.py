"""Batches of unequal prompts through a decoder: shared prefix, padding, sampling, stopping."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

# A shorter common beginning is not worth a forward pass of its own.
SHORTEST_PREFIX = 4
# Cache layers that hold keys and values and nothing else; exact types, since a subclass may hold more.
REPEATABLE = (DynamicLayer, DynamicSlidingWindowLayer)


@dataclass
class Row:
    """One sequence to continue: its prompt, how to draw, and what has been drawn so far.

    `seed` is None for the greedy choice. `finished` is asked after every token and answers the reason to stop, or "".
    """

    ids: tuple[int, ...]
    max_tokens: int
    finished: Callable[[list[int]], str]
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None
    drawn: list[int] = field(default_factory=list)
    reason: str = ""


@dataclass
class State:
    """What a batch has seen: all ids and the mask over them [row, position], and the model's cache."""

    ids: torch.Tensor
    mask: torch.Tensor
    cache: Any = None


class Decoder:
    """Run a Hugging Face decoder on prompts of unequal length, equal to one by one up to rounding.

    With `share` the longest common prefix of a batch is computed once and its keys and values are repeated. Shorter
    prompts are padded inside, behind their first tokens, so that all end together and no place sees only padding.
    Padding inside is wrong for layers with a window that the text outgrows, for recurrent layers, and for models that
    are not told positions: there only prompts of equal length run together.
    """

    def __init__(self, model: Any, pad: int, share: bool) -> None:
        """Look up what the model's forward understands."""
        self.model, self.pad, self.share = model, pad, share
        # An adapter's wrapper passes on what the model inside understands.
        inside = model.get_base_model() if hasattr(model, "get_base_model") else model
        self.known = frozenset(inspect.signature(inside.forward).parameters)
        self.device = model.get_input_embeddings().weight.device
        self._window: float | None = None

    def groups(self, rows: Sequence[Row]) -> list[list[Row]]:
        """Split a batch into parts that may run together: the whole, or rows of equal length."""
        lengths = {len(row.ids) for row in rows}
        longest = max(lengths) + max(row.max_tokens for row in rows)
        if len(lengths) == 1 or (min(lengths) > 1 and longest <= self.window()):
            return [list(rows)]
        return [[row for row in rows if len(row.ids) == length] for length in sorted(lengths)]

    def start(self, prompts: Sequence[Sequence[int]]) -> tuple[torch.Tensor, State]:
        """Run the prompts of one group; return the logits of the next token [row, vocabulary] and the state."""
        longest, shortest = max(len(row) for row in prompts), min(len(row) for row in prompts)
        prefix, cache = self._shared(prompts, shortest - 1)
        head = prefix or min(shortest - 1, 1)
        ids = torch.full((len(prompts), longest), self.pad)
        mask = torch.ones((len(prompts), longest), dtype=torch.long)
        for index, row in enumerate(prompts):
            gap = longest - len(row)
            ids[index, :head] = torch.tensor(row[:head])
            ids[index, head + gap :] = torch.tensor(row[head:])
            mask[index, head : head + gap] = 0
        state = State(ids.to(self.device), mask.to(self.device), cache)
        return self._forward(state.ids[:, prefix:], state, 1)[:, -1], state

    def step(self, tokens: Sequence[int], going: Sequence[bool], state: State) -> torch.Tensor:
        """Run one more token per row; return the next logits [row, vocabulary].

        Rows that are not `going` are masked, so that their positions stay within the model's.
        """
        ids = torch.tensor(tokens, device=self.device)[:, None]
        mask = torch.tensor(going, device=self.device)[:, None].to(state.mask.dtype)
        state.ids, state.mask = torch.cat([state.ids, ids], 1), torch.cat([state.mask, mask], 1)
        return self._forward(ids if state.cache is not None else state.ids, state, 1)[:, -1]

    def score(self, prompts: Sequence[Sequence[int]], endings: Sequence[Sequence[int]]) -> list[float]:
        """Return, teacher-forced, log P(ending | prompt) for each row: the sum over the ending's tokens."""
        rows = [(*prompt, *ending) for prompt, ending in zip(prompts, endings, strict=True)]
        longest, first = max(len(row) for row in rows), min(len(prompt) for prompt in prompts) - 1
        prefix, cache = self._shared(rows, first)
        # Nothing follows, so padding stands at the end, where a causal model cannot see it; it is not masked, because a
        # place that sees nothing at all can become NaN and spoil the sums of others.
        ids = torch.tensor([[*row, *[self.pad] * (longest - len(row))] for row in rows], device=self.device)
        logits = self._forward(ids[:, prefix:], State(ids, torch.ones_like(ids), cache), longest - first)
        sums = []
        for values, prompt, ending in zip(logits, prompts, endings, strict=True):
            begin = len(prompt) - 1 - first
            sums.append(sum_log_probs(values[begin : begin + len(ending)], ending))
        return sums

    def window(self) -> float:
        """Return up to which length padding inside a text is harmless: 0 for never, infinity for always."""
        if self._window is None:
            one = torch.full((1, 1), self.pad, device=self.device)
            state = State(one, torch.ones_like(one))
            self._forward(one, state, 1)
            layers = getattr(state.cache, "layers", None) or [None]
            plain = all(type(layer) in REPEATABLE for layer in layers) and "position_ids" in self.known
            self._window = min(float(getattr(layer, "sliding_window", math.inf)) for layer in layers) if plain else 0.0
        return float(self._window)

    def _forward(self, ids: torch.Tensor, state: State, keep: int) -> torch.Tensor:
        """Run the last tokens of the state and return the last `keep` logits in float32; the cache moves on."""
        positions = (state.mask.cumsum(1) - 1).clamp(min=0)[:, -ids.shape[1] :]
        arguments: dict[str, Any] = {
            "attention_mask": state.mask, "position_ids": positions, "logits_to_keep": keep,
            "past_key_values": state.cache, "use_cache": True, "return_dict": True,
        }  # fmt: skip
        out = self.model(input_ids=ids, **{name: value for name, value in arguments.items() if name in self.known})
        state.cache = getattr(out, "past_key_values", None)
        return out.logits[:, -keep:].float()

    def _shared(self, rows: Sequence[Sequence[int]], most: int) -> tuple[int, Any]:
        """Return the length of the common prefix and its keys and values, repeated; 0 and None where that cannot be."""
        prefix = min(common_prefix(rows), most)
        if not self.share or len(rows) < 2 or prefix < SHORTEST_PREFIX or not self.window():
            return 0, None
        ids = torch.tensor([list(rows[0][:prefix])], device=self.device)
        state = State(ids, torch.ones_like(ids))
        self._forward(ids, state, 1)
        state.cache.batch_repeat_interleave(len(rows))
        return prefix, state.cache


def continue_rows(decoder: Any, batch: Sequence[Row]) -> None:
    """Draw tokens for all rows of a batch until each has finished; `drawn` and `reason` are filled in anew."""
    for rows in decoder.groups(batch):
        for row in rows:
            row.drawn, row.reason = [], ""
        dice = [None if row.seed is None else np.random.default_rng(row.seed) for row in rows]
        logits, state = decoder.start([row.ids for row in rows])
        while True:
            for index, row in enumerate(rows):
                if row.reason:
                    continue
                row.drawn.append(draw(logits[index], row.temperature, row.top_p, dice[index]))
                row.reason = row.finished(row.drawn) or ("length" if len(row.drawn) >= row.max_tokens else "")
            going = [not row.reason for row in rows]
            if not any(going):
                break
            logits = decoder.step([row.drawn[-1] for row in rows], going, state)


def draw(logits: torch.Tensor, temperature: float, top_p: float, dice: np.random.Generator | None) -> int:
    """Choose a token from logits [vocabulary]: the largest, or by dice.

    The dice invert the cumulative distribution at one uniform number, so that rounding elsewhere hardly ever changes
    the token. top_p keeps the likeliest tokens until their probabilities first reach it.
    """
    if dice is None or temperature == 0:
        return int(logits.argmax())
    probabilities, order = torch.softmax(logits.double() / temperature, -1).sort(descending=True, stable=True)
    total = probabilities.cumsum(-1)
    if top_p < 1.0:
        total = total[: int((total < top_p).sum()) + 1]
    place = int(torch.searchsorted(total, dice.random() * float(total[-1]), right=True))
    return int(order[min(place, len(total) - 1)])


def sum_log_probs(logits: torch.Tensor, ids: Sequence[int]) -> float:
    """Return the summed natural log-probability of the tokens `ids` under logits [token, vocabulary]."""
    wanted = torch.tensor(list(ids), device=logits.device)[:, None]
    return float(logits.double().log_softmax(-1).gather(1, wanted).sum())


def common_prefix(rows: Sequence[Sequence[int]]) -> int:
    """Return the length of the longest common prefix."""
    # The first and the last row in dictionary order differ earliest.
    low, high = min(tuple(row) for row in rows), max(tuple(row) for row in rows)
    same = 0
    while same < min(len(low), len(high)) and low[same] == high[same]:
        same += 1
    return same
