"""Continue rows from kept keys and values: the part of a causal model's work that different inputs do not share.

Only for decoders whose attention goes through transformers' interface, with full attention and explicit positions;
whether it holds for a model is proved on the model itself before it is used.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from transformers import DynamicCache

from pellucid.models.batch import accepted, evaluating
from pellucid.models.hooks import Hook, hooked
from pellucid.models.taps import first_input

if TYPE_CHECKING:
    from pellucid.models.subject import Subject


@dataclass(frozen=True)
class Past:
    """Kept keys and values: per layer [rows, heads, positions, width], and how many positions of each row are real."""

    layers: tuple[tuple[torch.Tensor, torch.Tensor], ...]
    lengths: torch.Tensor

    def bytes(self) -> int:
        """Return the memory held."""
        return sum(k.numel() * k.element_size() + v.numel() * v.element_size() for k, v in self.layers)


@dataclass(frozen=True)
class Tail:
    """Tokens that come after the first `start` positions of row `parent` of a Past."""

    parent: int
    start: int
    ids: tuple[int, ...]


def can_continue(subject: Subject) -> bool:
    """Return whether a model's kind allows continuing from kept keys and values (the proof comes on top)."""
    model, layout = subject.model, subject.layout
    if subject.kind != "decoder" or subject.head != "causal-lm" or layout is None or subject.edits:
        return False
    config = model.config
    sliding = [kind for kind in getattr(config, "layer_types", None) or () if kind != "full_attention"]
    if sliding or getattr(config, "sliding_window", None) or not layout.stacks[""].interface or not layout.position_ids:
        return False
    names = accepted(type(model))
    return (
        "position_ids" in names
        and "past_key_values" in names
        and not any(p.device.type == "meta" for p in model.parameters())
    )


def continue_rows(
    subject: Subject,
    past: Past | None,
    tails: Sequence[Tail],
    wanted: tuple[torch.Tensor, torch.Tensor],
    keep: Sequence[int],
    read: Callable[[torch.Tensor], None],
    inside: Sequence[AbstractContextManager[None]] = (),
) -> Past | None:
    """Run tails behind their parents' first positions.

    Args:
        subject: the model.
        past: kept keys and values of the parents, None at the root.
        tails: one row each.
        wanted: (row, position in the tail) of every place whose logits are read; [n] each.
        keep: rows whose own keys and values are returned, parents' part included.
        read: is given the logits [n, vocabulary] of the wanted places.
        inside: contexts held while the model runs (hooks, bypassed blocks).

    Returns:
        The Past of the rows in `keep`, or None if there are none.
    """
    device = subject.input_device
    width = max(len(t.ids) for t in tails)
    lengths = torch.tensor([len(t.ids) for t in tails], device=device)
    starts = torch.tensor([t.start for t in tails], device=device)
    ids = torch.full((len(tails), width), subject.pad_id, dtype=torch.long)
    for i, tail in enumerate(tails):
        ids[i, : len(tail.ids)] = torch.tensor(tail.ids)
    held = int(starts.max())
    parents = torch.tensor([t.parent for t in tails], device=device)
    cache = DynamicCache() if past is None or held == 0 else DynamicCache(_gathered(past, parents, held))
    held = held if past is not None else 0
    steps = torch.arange(width, device=device)
    inputs = {
        "input_ids": ids.to(device),
        "attention_mask": _mask(starts, lengths, held, width, next(subject.model.parameters()).dtype),
        "position_ids": (starts[:, None] + steps[None]).clamp(max=(subject.max_length or 2**30) - 1)
        + subject.need_layout().position_start,
        "past_key_values": cache,
        "use_cache": True,
    }
    rows, places = wanted
    with subject.lock, torch.no_grad(), ExitStack() as stack:
        stack.enter_context(evaluating(subject.model))
        stack.enter_context(hooked([_only(subject, rows, places)]))
        for context in inside:
            stack.enter_context(context)
        raw = subject.model(**inputs)
    if len(rows):
        read(raw.logits[0])
    return _kept(cache, keep, starts, lengths, held) if keep else None


def _gathered(past: Past, parents: torch.Tensor, held: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    if past.lengths.shape[0] == 1:
        return [
            (k[:, :, :held].expand(len(parents), -1, -1, -1), v[:, :, :held].expand(len(parents), -1, -1, -1))
            for k, v in past.layers
        ]
    return [(k[parents, :, :held], v[parents, :, :held]) for k, v in past.layers]


def _mask(starts: torch.Tensor, lengths: torch.Tensor, held: int, width: int, dtype: torch.dtype) -> torch.Tensor:
    """Return the additive mask [rows, 1, width, held + width]: the parent's first places, then the tail causally."""
    step = torch.arange(width, device=starts.device)
    before = torch.arange(held, device=starts.device)[None, None] < starts[:, None, None]
    within = (step[None, :, None] >= step[None, None]) & (step[None, None] < lengths[:, None, None])
    # Padded places see themselves, so that no row of the softmax is empty.
    within = within | torch.eye(width, dtype=torch.bool, device=starts.device)[None]
    seen = torch.cat([before.expand(-1, width, -1), within], -1)
    return torch.zeros(seen.shape, dtype=dtype, device=starts.device).masked_fill(~seen, torch.finfo(dtype).min)[
        :, None
    ]


def _only(subject: Subject, rows: torch.Tensor, places: torch.Tensor) -> Hook:
    def pick(args: Any, kwargs: Any) -> Any:
        value, put = first_input(args, kwargs)
        if not len(rows):
            return put(value[:1, :1])
        return put(value[rows.to(value.device), places.to(value.device)][None])

    return Hook(subject.model.get_output_embeddings(), "input", pick)


def _kept(cache: DynamicCache, keep: Sequence[int], starts: torch.Tensor, lengths: torch.Tensor, held: int) -> Past:
    """Close the gap between each row's parent part and its tail: place j is j for j < start, else held + j - start."""
    chosen = torch.tensor(list(keep), device=starts.device)
    total = (starts + lengths)[chosen]
    place = torch.arange(int(total.max()), device=starts.device)[None].expand(len(chosen), -1)
    source = torch.where(place < starts[chosen][:, None], place, held + place - starts[chosen][:, None])
    source = source.clamp(max=held + int(lengths.max()) - 1)
    layers = []
    kept: list[Any] = list(cache.layers)
    for layer in kept:
        index = source[:, None, :, None].expand(-1, layer.keys.shape[1], -1, layer.keys.shape[3])
        wide = source[:, None, :, None].expand(-1, layer.values.shape[1], -1, layer.values.shape[3])
        layers.append((layer.keys[chosen].gather(2, index), layer.values[chosen].gather(2, wide)))
    return Past(tuple(layers), total)
