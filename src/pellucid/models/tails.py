"""Continue rows from kept keys and values: the part of a causal model's work that different inputs do not share.

Only for decoders whose attention goes through transformers' interface, with explicit positions, and within the window
of layers that have one; whether it holds for a model is proved on the model itself before it is used.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from pellucid.models.attention import Whole, replaced
from pellucid.models.batch import accepted, evaluating
from pellucid.models.hooks import Hook, acting, hooked
from pellucid.models.kernels import fast
from pellucid.models.last_block import at_places
from pellucid.models.layout import block_of, depth, submodule
from pellucid.models.shared_past import Continued, Past
from pellucid.models.taps import first_input, unwrap

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
    last: bool = False, grad: bool = False, head: bool = True,
) -> Past | None:  # fmt: skip
    """Run tails behind their parents' first positions.

    Args:
        subject: the model.
        past: kept keys and values of the parents, None at the root.
        tails: one row each.
        wanted: (row, position in the tail) of every place whose logits are read; [n] each.
        keep: rows whose own keys and values are returned, parents' part included.
        read: is given the logits [n, vocabulary] of the wanted places, or, where not `head`, what the last block gives.
        inside: contexts held while the model runs (hooks, bypassed blocks).
        last: let the last block ask, project and run its feed-forward layer at the wanted places alone, where nobody
            else looks.
        grad: keep the graph, so that what `inside` puts in can be differentiated.
        head: let the model's head run; for few places it costs as much as for many.

    Returns the Past of the rows in `keep`, or None if there are none.
    """
    device, layout = subject.input_device, subject.need_layout()
    starts = torch.tensor([t.start for t in tails], device=device)
    continued = Continued(
        past,
        torch.tensor([t.parent for t in tails], device=device),
        starts,
        torch.tensor([len(t.ids) for t in tails], device=device),
        torch.tensor(list(keep), dtype=torch.long, device=device),
        *((depth(subject.model, layout) - 1, wanted) if last and len(wanted[0]) else ()),
    )
    rows, places = wanted
    with subject.lock, torch.set_grad_enabled(grad), ExitStack() as stack:
        stack.enter_context(evaluating(subject.model))
        stack.enter_context(fast(subject.model))
        stack.enter_context(replaced(subject.model, _attention(subject, continued)))
        stack.enter_context(acting(at_places(subject, places, rows) if last and len(rows) else {}))
        for context in inside:
            stack.enter_context(context)
        ends = [stack.enter_context(_headless(subject, rows, places))] if not (head and len(rows)) else []
        stack.enter_context(hooked([] if ends else [_only(subject, rows, places)]))
        raw = subject.model(**_inputs(subject, tails, starts))
    if len(rows):
        read(raw.logits[0] if head else ends[0][0])
    return continued.kept_past()


def _inputs(subject: Subject, tails: Sequence[Tail], starts: torch.Tensor) -> dict[str, Any]:
    """Return what the model is called with, rows padded on the right."""
    width = max(len(tail.ids) for tail in tails)
    ids = torch.full((len(tails), width), subject.pad_id, dtype=torch.long)
    for i, tail in enumerate(tails):
        ids[i, : len(tail.ids)] = torch.tensor(tail.ids)
    positions = starts[:, None] + torch.arange(width, device=starts.device)[None]
    return {
        "input_ids": ids.to(starts.device),
        "attention_mask": torch.ones_like(ids, device=starts.device),  # the attention put in place knows the real ones
        "position_ids": positions.clamp(max=(subject.max_length or 2**30) - 1) + subject.need_layout().position_start,
        "use_cache": False,
    }


def _attention(subject: Subject, continued: Continued) -> dict[torch.nn.Module, Whole]:
    """Return what each attention module does instead of its own work."""
    layout = subject.need_layout()
    found: dict[torch.nn.Module, Whole] = {}
    for layer in range(depth(subject.model, layout)):
        block, _ = block_of(subject.model, layout.stacks[""], layer)
        found[submodule(block, layout.stacks[""].attention)] = functools.partial(continued.attend, layer)
    return found


@contextmanager
def _headless(subject: Subject, rows: torch.Tensor, places: torch.Tensor) -> Iterator[list[torch.Tensor]]:
    """Let the unembedding do nothing, and collect what the last block gives at some places: [n, dimension]."""
    layout, got = subject.need_layout(), list[torch.Tensor]()
    block, _ = block_of(subject.model, layout.stacks[""], depth(subject.model, layout) - 1)

    def keep(output: Any) -> Any:
        value = unwrap(output, 0)
        got.append(value[rows.to(value.device), places.to(value.device)])
        return output

    def nothing(*args: Any, **kwargs: Any) -> torch.Tensor:
        return first_input(args, kwargs)[0]

    with hooked([Hook(block, "output", keep)]), acting({subject.model.get_output_embeddings(): nothing}):
        yield got


def _only(subject: Subject, rows: torch.Tensor, places: torch.Tensor) -> Hook:
    def pick(args: Any, kwargs: Any) -> Any:
        value, put = first_input(args, kwargs)
        return put(value[rows.to(value.device), places.to(value.device)][None])

    return Hook(subject.model.get_output_embeddings(), "input", pick)
