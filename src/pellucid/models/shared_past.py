"""Attention of new tokens to kept keys and values: what rows have in common is stored once and multiplied at once.

Where all rows continue one parent, its keys meet the queries of all rows in a single product per head; nothing is
copied per row.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

SCORES_AT_ONCE = 1 << 21  # numbers; rows are cut so that their scores stay in the processor's cache


@dataclass(frozen=True)
class Past:
    """Kept keys and values: per layer [rows, heads, positions, width], and how many positions of each row are real."""

    layers: tuple[tuple[torch.Tensor, torch.Tensor], ...]
    lengths: torch.Tensor

    def bytes(self) -> int:
        """Return the memory held."""
        return sum(k.numel() * k.element_size() + v.numel() * v.element_size() for k, v in self.layers)


@dataclass
class Continued:
    """The attention of rows that continue parents: where each begins in which parent, how long it is, what to keep.

    `kept` are the keys and values [kept rows, heads, positions, width] of each layer, the parents' part included.
    In the layer `last`, if one is named, only `read` (rows, places) attend, and elsewhere zeros are returned.
    """

    past: Past | None
    parents: torch.Tensor
    starts: torch.Tensor
    lengths: torch.Tensor
    keep: torch.Tensor
    last: int | None = None
    read: tuple[torch.Tensor, torch.Tensor] | None = None
    kept: dict[int, tuple[torch.Tensor, torch.Tensor]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Build the two masks: which parent positions a row sees, and which of its own."""
        held = int(self.starts.max()) if self.past is not None else 0
        step = torch.arange(int(self.lengths.max()), device=self.starts.device)
        seen = torch.arange(held, device=self.starts.device)[None] < self.starts[:, None]
        within = (step[None, :, None] >= step[None, None]) & (step[None, None] < self.lengths[:, None, None])
        # Padded places see themselves, so that no row of the softmax is empty.
        within = within | torch.eye(len(step), dtype=torch.bool, device=self.starts.device)[None]
        self.held = held
        self.before = None if bool(seen.all()) else ~seen
        self.within = ~within
        self.asking = None if self.read is None else _by_row(*self.read, len(self.starts))

    def attend(
        self,
        layer: int,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        scaling: float | None,
        softcap: float | None,
        sinks: torch.Tensor | None,
    ) -> torch.Tensor:
        """Return one layer's [rows, positions, heads, width] from query, key and value [rows, heads, positions, width].

        Exact: softmax over the parent's positions before the row's start and the row's own, causally.
        """
        if len(self.keep):
            self.kept[layer] = self._with_parents(layer, key, value)
        if layer != self.last or self.asking is None:
            return self._attended(layer, query, key, value, self.within, scaling, softcap, sinks)
        some, real = (one[: len(query)].to(query.device) for one in self.asking)
        row = torch.arange(len(some), device=some.device)[:, None]
        asked, hidden = query.transpose(1, 2)[row, some].transpose(1, 2), self.within[row, some]
        found = query.new_zeros(len(query), query.shape[2], query.shape[1], value.shape[-1])
        given = self._attended(layer, asked, key, value, hidden, scaling, softcap, sinks)
        found[row.expand_as(some)[real], some[real]] = given[real]
        return found

    def _attended(
        self, layer: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, hidden: torch.Tensor,
        scaling: float | None, softcap: float | None, sinks: torch.Tensor | None,
    ) -> torch.Tensor:  # fmt: skip
        """Attend with queries [rows, heads, n, width], `hidden` [rows, n, positions] from own keys and values."""
        rows, heads, width, size = query.shape
        groups, own = heads // key.shape[1], key.shape[1]
        scale = size**-0.5 if scaling is None else scaling
        grouped = (query * scale).reshape(rows, own, groups * width, size)
        past = None if self.past is None or not self.held else self.past.layers[layer]
        found = query.new_empty(rows, own, groups * width, value.shape[-1])
        at_once = max(1, SCORES_AT_ONCE // (heads * width * (self.held + key.shape[2])))
        for first in range(0, rows, at_once):
            part = slice(first, min(first + at_once, rows))
            new = grouped[part] @ key[part].transpose(-1, -2)
            new = _capped(new, softcap).unflatten(2, (groups, width))
            new = new.masked_fill_(hidden[part, None, None], torch.finfo(new.dtype).min)
            if past is None:
                weights = _softmax(new, sinks).to(value.dtype)
                found[part] = weights.flatten(2, 3) @ value[part]
                continue
            old = _capped(self._old_scores(past[0], grouped[part], part), softcap).unflatten(2, (groups, width))
            if self.before is not None:
                old = old.masked_fill_(self.before[part, None, None, None], torch.finfo(old.dtype).min)
            weights = _softmax(torch.cat([old, new], -1), sinks).to(value.dtype).flatten(2, 3)
            found[part] = weights[..., self.held :] @ value[part]
            found[part] += self._old_values(past[1], weights[..., : self.held], part)
        return found.unflatten(2, (groups, width)).flatten(1, 2).transpose(1, 2)

    def _old_scores(self, keys: torch.Tensor, query: torch.Tensor, part: slice) -> torch.Tensor:
        """Multiply queries [rows, heads, n, width] with the parents' keys: [rows, heads, n, held]."""
        if len(keys) > 1:
            return query @ keys[self.parents[part], :, : self.held].transpose(-1, -2)
        rows, heads, count, size = query.shape
        flat = query.transpose(0, 1).reshape(heads, rows * count, size)
        return (flat @ keys[0, :, : self.held].transpose(-1, -2)).view(heads, rows, count, -1).transpose(0, 1)

    def _old_values(self, values: torch.Tensor, weights: torch.Tensor, part: slice) -> torch.Tensor:
        if len(values) > 1:
            return weights @ values[self.parents[part], :, : self.held]
        rows, heads, count, held = weights.shape
        flat = weights.transpose(0, 1).reshape(heads, rows * count, held)
        return (flat @ values[0, :, :held]).view(heads, rows, count, -1).transpose(0, 1)

    def _with_parents(self, layer: int, key: torch.Tensor, value: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Join the parents' part and the own part of the rows to keep: [kept, heads, positions, width]."""
        starts, chosen = self.starts[self.keep], self.keep
        total = starts + self.lengths[chosen]
        place = torch.arange(int(total.max()), device=starts.device)[None].expand(len(chosen), -1)
        source = torch.where(place < starts[:, None], place, self.held + place - starts[:, None])
        source = source.clamp(max=self.held + key.shape[2] - 1)
        joined = []
        for own, number in ((key, 0), (value, 1)):
            parts = own[chosen]
            if self.past is not None and self.held:
                old = self.past.layers[layer][number]
                old = old.expand(len(chosen), -1, -1, -1) if len(old) == 1 else old[self.parents[chosen]]
                parts = torch.cat([old[:, :, : self.held], parts], 2)
            index = source[:, None, :, None].expand(-1, parts.shape[1], -1, parts.shape[3])
            joined.append(parts.gather(2, index))
        return joined[0], joined[1]

    def kept_past(self) -> Past | None:
        """Return what the rows to keep leave behind, or None where nothing was to be kept."""
        if not len(self.keep):
            return None
        total = (self.starts + self.lengths)[self.keep]
        return Past(tuple(self.kept[layer] for layer in sorted(self.kept)), total)


def _by_row(rows: torch.Tensor, places: torch.Tensor, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the different places of each row [rows, most], filled up with 0, and which of them are real."""
    own: list[dict[int, None]] = [{} for _ in range(count)]
    for row, place in zip(rows.tolist(), places.tolist(), strict=True):
        own[row][place] = None
    most = max(map(len, own))
    filled = torch.tensor([[*some, *[0] * (most - len(some))] for some in own], dtype=torch.long)
    return filled, torch.arange(most)[None] < torch.tensor([[len(some)] for some in own])


def _capped(scores: torch.Tensor, softcap: float | None) -> torch.Tensor:
    return scores if softcap is None else torch.tanh(scores / softcap) * softcap


def _softmax(scores: torch.Tensor, sinks: torch.Tensor | None) -> torch.Tensor:
    """Return weights over the last axis of [rows, key heads, groups, positions, keys]; sinks [heads] take a share."""
    wide = scores if scores.dtype == torch.float64 else scores.float()
    if sinks is None:
        return wide.softmax(-1)
    extra = sinks.reshape(1, wide.shape[1], wide.shape[2], 1, 1).expand(*wide.shape[:-1], 1).to(wide.dtype)
    return torch.cat([wide, extra], -1).softmax(-1)[..., :-1]
