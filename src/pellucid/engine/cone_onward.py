"""Rows of the causal cone, run to the end: each enters a batch at the block where it begins to differ.

Rows of one batch start at similar positions, in whatever block they enter, so few positions are padded. A row whose
edits are those of another up to some block is that row until there. Where a model does not take rows on the way, those
of one block make a batch of their own.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch

from pellucid.core.axes import parse_site
from pellucid.core.errors import PellucidError
from pellucid.engine.cone_block import AFTER_PATTERN
from pellucid.engine.cone_rows import Base, blocks_of, moved, run
from pellucid.engine.model_head import outputs_of
from pellucid.engine.planning import check_cancelled
from pellucid.models.batch import Row
from pellucid.models.edits import Edit
from pellucid.models.forward import tail_hooks
from pellucid.models.hooks import Hook, bypassed, hooked
from pellucid.models.tails import Tail
from pellucid.models.taps import first_input, rewrap, unwrap

if TYPE_CHECKING:
    from pellucid.models.subject import Subject

PADDING = 1.03  # rows of one batch may be padded by this factor
TOKENS_AT_ONCE = 2048  # what a block makes of so many tokens stays in a processor's cache for the most part
FREE_TOKENS = 256  # below this many tokens a block, padding costs less than another batch


@dataclass(frozen=True)
class Start:
    """A row: its run, the block and position where it begins, new values of the stream at some positions, later edits.

    `parent` is the row of the batch whose stream it takes on where it enters, None where it departs from its run.
    """

    run: int
    layer: int
    position: int
    places: tuple[int, ...] = ()
    values: torch.Tensor | None = None
    edits: tuple[Edit, ...] = ()
    parent: int | None = None


def onward(
    subject: Subject, base: Base, rows: Sequence[Start], wanted: list[int]
) -> Iterator[tuple[list[int], torch.Tensor]]:
    """Continue rows from their blocks on; give some numbers and what the last block gives [rows, wanted, dimension]."""
    blocks = len(blocks_of(subject))
    groups = [list(range(len(rows)))]
    if len({row.layer for row in rows}) > 1 and not takes_rows_on_the_way(subject, base):
        groups = [[i for i in groups[0] if rows[i].layer == layer] for layer in range(blocks + 1)]
    for group in groups:
        for chunk in _chunks(base, rows, group, blocks):
            check_cancelled()
            order, batch = _ordered(chunk, [rows[i] for i in chunk], blocks)
            yield order, _finish(subject, base, batch, wanted)


def takes_rows_on_the_way(subject: Subject, base: Base) -> bool:
    """Return whether this model gives the same for rows that enter one batch at different blocks."""
    key = ("rows on the way", type(subject.model), subject.dtype)
    if key not in subject.state.cache:
        wanted, blocks = [len(base.ids) - 1], len(blocks_of(subject))
        rows = [Start(0, layer, max(0, len(base.ids) - 2)) for layer in range(blocks + 1)]
        try:
            found = outputs_of(subject, _finish(subject, base, rows, wanted)[:, 0])
        except (PellucidError, RuntimeError, TypeError, ValueError, AttributeError, IndexError):
            found = torch.full((1,), torch.nan)
        whole, eps = base.logits[0, -1], torch.finfo(getattr(torch, subject.dtype)).eps
        close = (found - whole).abs().max() <= 2000 * max(eps, 1e-9) * max(1.0, float(whole.abs().max()))
        subject.state.cache[key] = bool(close)
    return bool(subject.state.cache[key])


def _chunks(base: Base, rows: Sequence[Start], group: Sequence[int], blocks: int) -> Iterator[list[int]]:
    """Cut rows into batches of similar start, so that little padding is computed."""
    chunk: list[int] = []
    real = weight = 0
    for i in sorted(group, key=lambda i: (rows[i].position, rows[i].layer)):
        own = len(base.ids) - rows[i].position
        width, passed = len(base.ids) - rows[chunk[0] if chunk else i].position, max(1, blocks - rows[i].layer)
        padded = width * (weight + passed)
        most = max(FREE_TOKENS * blocks, PADDING * (real + own * passed))
        if chunk and ((len(chunk) + 1) * width > TOKENS_AT_ONCE or padded > most):
            yield chunk
            chunk, real, weight = [], 0, 0
        chunk.append(i)
        real, weight = real + own * passed, weight + passed
    if chunk:
        yield chunk


def _ordered(numbers: list[int], rows: list[Start], blocks: int) -> tuple[list[int], list[Start]]:
    """Return a batch in the order in which its rows enter, those that begin alike from the row that they leave."""
    known: dict[tuple[Any, ...], int] = {}
    entering, parents = [row.layer for row in rows], [-1] * len(rows)
    for i, row in enumerate(rows):
        made = [(parse_site(edit.site).layer or 0, id(edit)) for edit in row.edits]
        origin = (row.run, row.layer, row.position, row.places, id(row.values))
        alike = [
            (layer, *origin, *(one for one in made if one[0] < layer)) for layer in range(row.layer + 1, blocks + 1)
        ]
        shared = [state for state in alike if state in known]
        if shared:
            entering[i], parents[i] = shared[-1][0], known[shared[-1]]
        for state in alike:
            known.setdefault(state, i)
    order = sorted(range(len(rows)), key=lambda i: entering[i])
    place = {i: number for number, i in enumerate(order)}
    batch = [replace(rows[i], layer=entering[i], parent=place[parents[i]] if parents[i] >= 0 else None) for i in order]
    return [numbers[i] for i in order], batch


class _Entrance:
    """The rows of a batch as they enter: `count[l]` are in it at the input of block l, all of them past the last."""

    def __init__(self, base: Base, rows: Sequence[Start], blocks: int) -> None:
        self.base, self.rows = base, rows
        self.width = len(base.ids) - min(row.position for row in rows)
        self.count = [sum(row.layer <= layer for row in rows) for layer in range(blocks + 1)]

    def joined(self, layer: int, before: torch.Tensor) -> torch.Tensor:
        """Return the stream [rows, positions, dimension] at a block's input, with the rows that enter there."""
        there, here = self.count[layer - 1] if layer else 0, self.count[layer]
        if there == here:
            return before
        stream = self.base.streams[layer]
        new = stream.new_zeros(here - there, self.width, stream.shape[-1])
        for own, row in zip(new, self.rows[there:here], strict=True):
            if row.parent is not None:
                own.copy_(before[row.parent])
                continue
            own[: len(self.base.ids) - row.position] = stream[row.run, row.position :]
            if row.values is not None:
                own[[p - row.position for p in row.places]] = row.values
        return torch.cat([before, new]) if there else new

    def into(self, layer: int) -> Any:
        """Return a hook function for a block's input."""

        def enter(args: Any, kwargs: Any) -> Any:
            hidden = self.joined(layer, first_input(args, kwargs)[0])
            if self.count[layer] < len(self.rows):
                args, kwargs = self._of_those_inside((args, kwargs), self.count[layer])
            return first_input(args, kwargs)[1](hidden)

        return enter

    def _of_those_inside(self, given: Any, count: int) -> Any:
        """Return what a block is told about all rows of the batch, as positions, for the first rows alone."""
        if isinstance(given, torch.Tensor):
            return given[:count] if given.ndim > 1 and len(given) == len(self.rows) else given
        if type(given) in (tuple, list):
            return type(given)(self._of_those_inside(one, count) for one in given)
        return {k: self._of_those_inside(v, count) for k, v in given.items()} if type(given) is dict else given


def _finish(subject: Subject, base: Base, rows: Sequence[Start], wanted: list[int]) -> torch.Tensor:
    """Run rows, in the order in which they enter, through the last block: [rows, wanted, dimension]."""
    blocks, first = blocks_of(subject), rows[0].layer
    entrance = _Entrance(base, rows, len(blocks))
    hooks: list[Hook] = []
    for layer in range(first, len(blocks)):
        inside = [_edited(base, row, layer) for row in rows[: entrance.count[layer]]]
        hooks += [Hook(blocks[layer], "input", entrance.into(layer)), *tail_hooks(subject, inside)]

    def leave(output: Any) -> Any:
        return rewrap(output, 0, entrance.joined(len(blocks), unwrap(output, 0)))

    hooks.append(Hook(blocks[-1], "output", leave))
    ends = [(number, at - row.position) for number, row in enumerate(rows) for at in wanted]
    tails = [Tail(row.run, row.position, base.ids[row.position :]) for row in rows]
    seen = any(_sees_unread(base, edit, len(blocks) - 1, wanted) for row in rows for edit in row.edits)
    around: list[AbstractContextManager[None]] = [bypassed(blocks[:first], base.parts), hooked(hooks)]
    return run(subject, base.past, tails, ends, around, last=not seen).reshape(len(rows), len(wanted), -1)


def _sees_unread(base: Base, edit: Edit, layer: int, wanted: list[int]) -> bool:
    """Return whether an edit of the last block may need, past its attention, what stands at other places."""
    site, at = parse_site(edit.site), edit.where.get("position")
    if site.layer != layer or site.part not in AFTER_PATTERN:
        return False
    if at is None or isinstance(at, slice) or site.part in ("mlp.gate", "mlp.up", "mlp.post"):
        return True
    read = [(p if p >= 0 else base.prompt + p) in wanted for p in ((at,) if isinstance(at, int) else at)]
    return any(read) and not all(read)


def _edited(base: Base, row: Start, layer: int) -> Row:
    """Return a row with the edits of one block."""
    places = tuple(range(row.position, len(base.ids)))
    here = [edit for edit in row.edits if parse_site(edit.site).layer == layer]
    return Row(base.ids[row.position :], edits=tuple(moved(edit, places, base.prompt) for edit in here))
