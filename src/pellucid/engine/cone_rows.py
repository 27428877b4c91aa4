"""Rows of the causal cone: parts of one run, continued from a block and a position on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from pellucid.core.axes import parse_site
from pellucid.engine.planning import TOKENS_PER_BATCH
from pellucid.models.batch import Row
from pellucid.models.edits import Edit
from pellucid.models.forward import tail_hooks
from pellucid.models.hooks import Hook, bypassed, hooked
from pellucid.models.layout import block_of, depth
from pellucid.models.tails import Past, Tail, continue_rows
from pellucid.models.taps import first_input, rewrap, unwrap

if TYPE_CHECKING:
    from pellucid.models.subject import Subject

MOST_BYTES = 1 << 29
Start = tuple[int, torch.Tensor | None, Edit | None]


@dataclass(frozen=True)
class Base:
    """The run that edits depart from: its ids, keys and values, and the stream before every block and at the end."""

    ids: tuple[int, ...]
    past: Past
    streams: tuple[torch.Tensor, ...]
    tuples: bool


def base_run(subject: Subject, ids: tuple[int, ...]) -> Base:
    """Run the whole sequence once and keep what its edits will need."""
    blocks = _blocks(subject)
    streams: dict[int, torch.Tensor] = {}
    kinds: list[bool] = []

    def before(layer: int) -> Any:
        def keep(args: Any, kwargs: Any) -> Any:
            streams[layer] = first_input(args, kwargs)[0][0]
            return args, kwargs

        return keep

    def after(output: Any) -> Any:
        kinds.append(isinstance(output, tuple))
        streams[len(blocks)] = unwrap(output, 0)[0]
        return output

    hooks = [Hook(block, "input", before(layer)) for layer, block in enumerate(blocks)]
    none = (torch.zeros(0, dtype=torch.long), torch.zeros(0, dtype=torch.long))
    past = continue_rows(
        subject,
        None,
        [Tail(0, 0, ids)],
        none,
        [0],
        lambda logits: None,
        [hooked([*hooks, Hook(blocks[-1], "output", after)])],
    )
    assert past is not None
    return Base(ids, past, tuple(streams[layer] for layer in range(len(blocks) + 1)), kinds[0])


def at_one_place(subject: Subject, base: Base, layer: int, edits: Sequence[tuple[Edit, int]]) -> list[torch.Tensor]:
    """Return the block's output [dimension] at each edit's position, with the edit made.

    Each row is one token; all other blocks are bypassed.
    """
    blocks = _blocks(subject)
    found: list[torch.Tensor] = []
    per_row = sum(k.numel() + v.numel() for k, v in base.past.layers[layer : layer + 1]) * 4
    size = max(1, min(TOKENS_PER_BATCH, MOST_BYTES // max(per_row, 1)))
    for first in range(0, len(edits), size):
        chunk = edits[first : first + size]
        got: list[torch.Tensor] = []

        def keep(output: Any, got: list[torch.Tensor] = got) -> Any:
            got.extend(unwrap(output, 0)[:, 0])
            return output

        hidden = torch.stack([base.streams[layer][position] for _, position in chunk])[:, None]
        rows = [Row((base.ids[position],), edits=(shifted(edit, position, 1),)) for edit, position in chunk]
        hooks = [
            Hook(blocks[layer], "input", _put(hidden)),
            *tail_hooks(subject, rows),
            Hook(blocks[layer], "output", keep),
        ]
        others = [block for i, block in enumerate(blocks) if i != layer]
        tails = [Tail(0, position, (base.ids[position],)) for _, position in chunk]
        _run(subject, base, tails, [], [hooked(hooks), bypassed(others, base.tuples)])
        found += got
    return found


def onward(subject: Subject, base: Base, layer: int, rows: Sequence[Start], wanted: list[int]) -> list[torch.Tensor]:
    """Continue rows from the input of a block on and return their logits [wanted, vocabulary], in order.

    A row is (position, value put into the stream there or None, edit made on the way or None).
    """
    found: dict[int, torch.Tensor] = {}
    for chunk in _chunks(base, layer, rows):
        starts = [rows[i][0] for i in chunk]
        width = len(base.ids) - min(starts)
        hidden = torch.zeros(len(chunk), width, base.streams[layer].shape[-1]).to(base.streams[layer])
        for row, i in enumerate(chunk):
            position, value, _ = rows[i]
            hidden[row, : len(base.ids) - position] = base.streams[layer][position:]
            if value is not None:
                hidden[row, 0] = value
        found.update(zip(chunk, _finish(subject, base, layer, [rows[i] for i in chunk], hidden, wanted), strict=True))
    return [found[i] for i in range(len(rows))]


def _finish(
    subject: Subject, base: Base, layer: int, rows: Sequence[Start], hidden: torch.Tensor, wanted: list[int]
) -> Iterator[torch.Tensor]:
    blocks = _blocks(subject)
    count = len(base.ids)
    edited = [
        Row(base.ids[position:], edits=() if edit is None else (shifted(edit, position, count - position),))
        for position, _, edit in rows
    ]
    # Past the last block, the value goes in where the last block hands it on.
    entry = (
        Hook(blocks[layer], "input", _put(hidden))
        if layer < len(blocks)
        else Hook(blocks[-1], "output", _hand_on(hidden))
    )
    hooks = [entry, *tail_hooks(subject, edited)]
    places = [(row, place - rows[row][0]) for row in range(len(rows)) for place in wanted if place >= rows[row][0]]
    tails = [Tail(0, position, base.ids[position:]) for position, _, _ in rows]
    logits = _run(subject, base, tails, places, [bypassed(blocks[:layer], base.tuples), hooked(hooks)])
    return iter(logits.reshape(len(rows), len(wanted), -1))


def _run(
    subject: Subject,
    base: Base,
    tails: list[Tail],
    places: list[tuple[int, int]],
    inside: list[AbstractContextManager[None]],
) -> torch.Tensor:
    out: list[torch.Tensor] = []
    wanted = (
        torch.tensor([row for row, _ in places], dtype=torch.long),
        torch.tensor([place for _, place in places], dtype=torch.long),
    )
    continue_rows(subject, base.past, tails, wanted, [], out.append, inside)
    return out[0] if out else torch.zeros(0)


def shifted(edit: Edit, start: int, width: int) -> Edit:
    """Return the edit with positions counted from `start`, as a row that begins there needs it."""
    axes = parse_site(edit.site).axes
    position = edit.where["position"]
    where = dict(edit.where) | {"position": 0 if isinstance(position, int) else position}
    value = edit.value
    if edit.how == "patch_from" and isinstance(value, torch.Tensor):
        value = value.narrow(axes.index("position"), start, min(width, value.shape[axes.index("position")] - start))
    return Edit(edit.site, edit.how, value, where, seed=edit.seed)


def _chunks(base: Base, layer: int, rows: Sequence[Start]) -> Iterator[list[int]]:
    """Cut rows into batches of similar start, so that little padding is computed."""
    order = sorted(range(len(rows)), key=lambda i: rows[i][0])
    chunk: list[int] = []
    for i in order:
        width = len(base.ids) - (rows[chunk[0]][0] if chunk else rows[i][0])
        padded, real = (len(chunk) + 1) * width, sum(len(base.ids) - rows[j][0] for j in (*chunk, i))
        if chunk and (padded > TOKENS_PER_BATCH or (padded > 1.15 * real and real > 512)):
            yield chunk
            chunk = []
        chunk.append(i)
    if chunk:
        yield chunk


def _blocks(subject: Subject) -> list[torch.nn.Module]:
    layout = subject.need_layout()
    return [block_of(subject.model, layout.stacks[""], layer)[0] for layer in range(depth(subject.model, layout))]


def _put(hidden: torch.Tensor) -> Any:
    def put(args: Any, kwargs: Any) -> Any:
        return first_input(args, kwargs)[1](hidden)

    return put


def _hand_on(hidden: torch.Tensor) -> Any:
    def put(output: Any) -> Any:
        return rewrap(output, 0, hidden)

    return put
