"""The block in which an edit enters the causal cone, for the edited positions alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

import torch

from pellucid.core.axes import Site, parse_site
from pellucid.core.errors import PellucidError
from pellucid.engine.cone_rows import Base, blocks_of, moved, put_in, run
from pellucid.engine.planning import TOKENS_PER_BATCH
from pellucid.models.batch import Row
from pellucid.models.edits import Edit, apply_edit
from pellucid.models.forward import tail_hooks
from pellucid.models.hooks import Hook, acting, bypassed, hooked
from pellucid.models.layout import place, submodule
from pellucid.models.tails import Tail
from pellucid.models.taps import rewrap, unwrap

if TYPE_CHECKING:
    from pellucid.models.subject import Subject

# Sites after the attention pattern: their value at one position reaches, within their block, that position alone.
AFTER_PATTERN = (
    "attn.z",
    "attn.out_raw",
    "attn.out",
    "resid_mid",
    "mlp.gate",
    "mlp.up",
    "mlp.post",
    "mlp.out_raw",
    "mlp.out",
    "resid_post",
)
Placed = tuple[int, tuple[Edit, ...], tuple[int, ...]]  # the run, the edits, the positions


def after_pattern(subject: Subject, base: Base, layer: int, rows: Sequence[Placed]) -> list[torch.Tensor]:
    """Return the block's output [positions, dimension] at each row's positions, with its edits made.

    Attention is not computed: its output projection is given what it was given in the base run, so an edit of a head
    goes through the output projection only. An edit of what the block gives needs no part of it.
    """
    found = {i: _given(base, layer, i, row) for i, row in enumerate(rows) if row[1] and all(map(_at_the_end, row[1]))}
    for chunk in _chunks(rows, [i for i in range(len(rows)) if i not in found]):
        places = [rows[i][2] for i in chunk]
        width = max(map(len, places))
        runs = torch.tensor([[rows[i][0]] for i in chunk])
        index = torch.tensor([[*at, *(at[-1:] * (width - len(at)))] for at in places])
        got = _half(subject, base, layer, (runs, index), [rows[i] for i in chunk])
        found.update({i: got[number, : len(at)] for number, (i, at) in enumerate(zip(chunk, places, strict=True))})
    return [found[i] for i in range(len(rows))]


def _at_the_end(edit: Edit) -> bool:
    return parse_site(edit.site).part == "resid_post"


def _given(base: Base, layer: int, number: int, row: Placed) -> torch.Tensor:
    """Return what the block gave in the base run [positions, dimension], edited."""
    run, edits, at = row
    value = base.streams[layer + 1][run, list(at)]
    for edit in edits:
        here = moved(edit, at, base.prompt)
        new = apply_edit(value, here, parse_site(edit.site), number, len(at), len(at))
        value = value if new is None else new
    return value


def _half(
    subject: Subject, base: Base, layer: int, index: tuple[torch.Tensor, torch.Tensor], rows: Sequence[Placed]
) -> torch.Tensor:
    layout, blocks = subject.need_layout(), blocks_of(subject)
    project = place(subject.model, layout, Site("", layer, "attn.z")).module
    mixed = base.mixed[layer][index]

    def attention(*args: Any, **kwargs: Any) -> Any:
        return rewrap(base.attention, 0, unwrap(project(mixed), 0))

    inside = acting({submodule(blocks[layer], layout.stacks[""].attention): attention})
    return _block_alone(subject, base, layer, base.streams[layer][index], rows, [0] * len(rows), inside)


def _block_alone(
    subject: Subject, base: Base, layer: int, hidden: torch.Tensor, rows: Sequence[Placed], starts: Sequence[int],
    inside: AbstractContextManager[None] | None = None,
) -> torch.Tensor:  # fmt: skip
    """Run one block on hidden states [rows, positions, dimension], all other blocks bypassed, and return its output."""
    blocks = blocks_of(subject)
    got: list[torch.Tensor] = []

    def keep(output: Any) -> Any:
        got.append(unwrap(output, 0))
        return output

    edited = [
        Row(tuple(base.ids[p] for p in at), edits=tuple(moved(edit, at, base.prompt) for edit in edits))
        for _, edits, at in rows
    ]
    hooks = [
        Hook(blocks[layer], "input", put_in(hidden)),
        *tail_hooks(subject, edited),
        Hook(blocks[layer], "output", keep),
    ]
    others = [block for i, block in enumerate(blocks) if i != layer]
    tails = [Tail(run, start, row.ids) for (run, _, _), start, row in zip(rows, starts, edited, strict=True)]
    contexts: list[AbstractContextManager[None]] = [hooked(hooks), bypassed(others, base.parts)]
    contexts += [] if inside is None else [inside]
    run(subject, None if inside is not None else base.past, tails, [], contexts)
    return got[0]


def at_one_place(subject: Subject, base: Base, layer: int, rows: Sequence[Placed]) -> list[torch.Tensor]:
    """Return the block's output [1, dimension] at each row's one position, attention from there computed anew."""
    found: list[torch.Tensor] = []
    for first in range(0, len(rows), TOKENS_PER_BATCH):
        chunk = rows[first : first + TOKENS_PER_BATCH]
        positions = [at[0] for _, _, at in chunk]
        hidden = base.streams[layer][[run for run, _, _ in chunk], positions][:, None]
        found += list(_block_alone(subject, base, layer, hidden, chunk, positions))
    return found


def has_halves(subject: Subject, base: Base) -> bool:
    """Return whether, in this model, a block gives the same from what its output projection was given."""
    key = ("half blocks", type(subject.model), subject.dtype)
    if key not in subject.state.cache:
        subject.state.cache[key] = _halves_agree(subject, base)
    return bool(subject.state.cache[key])


def _halves_agree(subject: Subject, base: Base) -> bool:
    if place(subject.model, subject.need_layout(), Site("", 0, "attn.z")).tap.flat:
        return False
    everywhere, runs = tuple(range(len(base.ids))), range(len(base.logits))
    eps = torch.finfo(getattr(torch, subject.dtype)).eps
    for layer in range(len(base.mixed)):
        try:
            found = torch.stack(after_pattern(subject, base, layer, [(run, (), everywhere) for run in runs]))
        except (PellucidError, RuntimeError, TypeError, ValueError, AttributeError, IndexError):
            return False
        whole = base.streams[layer + 1]
        if not bool((found - whole).abs().max() <= 2000 * max(eps, 1e-9) * max(1.0, float(whole.abs().max()))):
            return False
    return True


def _chunks(rows: Sequence[Placed], some: Sequence[int]) -> Iterator[list[int]]:
    """Cut some of the rows into batches by their number of positions."""
    chunk: list[int] = []
    for i in sorted(some, key=lambda i: len(rows[i][2])):
        if chunk and (len(chunk) + 1) * len(rows[i][2]) > TOKENS_PER_BATCH:
            yield chunk
            chunk = []
        chunk.append(i)
    if chunk:
        yield chunk
