"""Continue rows from kept keys and values: the part of a causal model's work that different inputs do not share.

Only for decoders whose attention goes through transformers' interface, with explicit positions, and within the window
of layers that have one; whether it holds for a model is proved on the model itself before it is used.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from pellucid.core.axes import Site
from pellucid.models.attention import Whole, replaced
from pellucid.models.batch import accepted, evaluating
from pellucid.models.hooks import Hook, acting, hooked
from pellucid.models.kernels import fast
from pellucid.models.layout import block_of, depth, place, submodule
from pellucid.models.shared_past import Continued, Past
from pellucid.models.taps import first_input

if TYPE_CHECKING:
    from pellucid.models.subject import Subject


KINDS = {"full_attention", "sliding_attention", "chunked_attention"}


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
    stack = layout.stacks[""]
    return (
        stack.interface
        and not stack.shared
        and layout.position_ids
        and "position_ids" in accepted(type(model))
        and set(getattr(model.config, "layer_types", None) or ()) <= KINDS
        and not any(p.device.type == "meta" for p in model.parameters())
    )


def within_window(subject: Subject, length: int) -> bool:
    """Return whether attention limited to a window or a chunk is full attention for inputs of this length."""
    config = subject.model.config
    limits = [getattr(config, name, None) for name in ("sliding_window", "attention_chunk_size")]
    return all(length <= limit for limit in limits if isinstance(limit, int) and limit > 0)


def continue_rows(
    subject: Subject,
    past: Past | None,
    tails: Sequence[Tail],
    wanted: tuple[torch.Tensor, torch.Tensor],
    keep: Sequence[int],
    read: Callable[[torch.Tensor], None],
    inside: Sequence[AbstractContextManager[None]] = (),
    last: bool = False, grad: bool = False,
) -> Past | None:  # fmt: skip
    """Run tails behind their parents' first positions.

    Args:
        subject: the model.
        past: kept keys and values of the parents, None at the root.
        tails: one row each.
        wanted: (row, position in the tail) of every place whose logits are read; [n] each.
        keep: rows whose own keys and values are returned, parents' part included.
        read: is given the logits [n, vocabulary] of the wanted places.
        inside: contexts held while the model runs (hooks, bypassed blocks).
        last: let the feed-forward layer of the last block run at the wanted places alone, where nobody else looks.
        grad: keep the graph, so that what `inside` puts in can be differentiated.

    Returns the Past of the rows in `keep`, or None if there are none.
    """
    device = subject.input_device
    width = max(len(t.ids) for t in tails)
    starts = torch.tensor([t.start for t in tails], device=device)
    ids = torch.full((len(tails), width), subject.pad_id, dtype=torch.long)
    for i, tail in enumerate(tails):
        ids[i, : len(tail.ids)] = torch.tensor(tail.ids)
    continued = Continued(
        past,
        torch.tensor([t.parent for t in tails], device=device),
        starts,
        torch.tensor([len(t.ids) for t in tails], device=device),
        torch.tensor(list(keep), dtype=torch.long, device=device),
    )
    inputs = {
        "input_ids": ids.to(device),
        "attention_mask": torch.ones_like(ids, device=device),  # the attention put in place knows which are real
        "position_ids": (starts[:, None] + torch.arange(width, device=device)[None]).clamp(
            max=(subject.max_length or 2**30) - 1
        )
        + subject.need_layout().position_start,
        "use_cache": False,
    }
    rows, places = wanted
    with subject.lock, torch.set_grad_enabled(grad), ExitStack() as stack:
        stack.enter_context(evaluating(subject.model))
        stack.enter_context(fast(subject.model))
        stack.enter_context(hooked([_only(subject, rows, places)]))
        stack.enter_context(replaced(subject.model, _attention(subject, continued)))
        stack.enter_context(acting(_last_layer(subject, rows, places) if last and len(rows) else {}))
        for context in inside:
            stack.enter_context(context)
        raw = subject.model(**inputs)
    if len(rows):
        read(raw.logits[0])
    return continued.kept_past()


def _attention(subject: Subject, continued: Continued) -> dict[torch.nn.Module, Whole]:
    """Return what each attention module does instead of its own work."""
    layout = subject.need_layout()
    found: dict[torch.nn.Module, Whole] = {}
    for layer in range(depth(subject.model, layout)):
        block, _ = block_of(subject.model, layout.stacks[""], layer)
        found[submodule(block, layout.stacks[""].attention)] = functools.partial(continued.attend, layer)
    return found


def _last_layer(subject: Subject, rows: torch.Tensor, places: torch.Tensor) -> dict[torch.nn.Module, Any]:
    """Return the last feed-forward layer's work at some places: past the last attention, no other is read."""
    layout = subject.need_layout()
    name = "mlp.out_raw" if "mlp.out_raw" in layout.stacks[""].taps else "mlp.out"
    module = place(subject.model, layout, Site("", depth(subject.model, layout) - 1, name)).module
    own = module.forward

    def work(*args: Any, **kwargs: Any) -> Any:
        if len(args) != 1 or kwargs or args[0].ndim != 3:
            return own(*args, **kwargs)
        inside = rows < len(args[0])  # rows that enter past the last block are read as they are
        where = (rows[inside].to(args[0].device), places[inside].to(args[0].device))
        found = own(args[0][where][None])
        if not isinstance(found, torch.Tensor):
            return own(*args)
        out = found.new_zeros(*args[0].shape[:2], found.shape[-1])
        out[where] = found[0]
        return out

    return {module: work}


def _only(subject: Subject, rows: torch.Tensor, places: torch.Tensor) -> Hook:
    def pick(args: Any, kwargs: Any) -> Any:
        value, put = first_input(args, kwargs)
        if not len(rows):
            return put(value[:1, :1])
        return put(value[rows.to(value.device), places.to(value.device)][None])

    return Hook(subject.model.get_output_embeddings(), "input", pick)
