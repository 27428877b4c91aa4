"""Scores of a model whose blocks are dropped or stand in another order."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

import numpy as np
import torch

from pellucid.core.axes import Site
from pellucid.core.errors import CapabilityError
from pellucid.engine.cone import score_edits, score_edits_plain
from pellucid.engine.planning import check_cancelled
from pellucid.engine.question import Question
from pellucid.engine.reading import read
from pellucid.engine.stream_parts import part_kinds
from pellucid.engine.variants import whole
from pellucid.models.edits import Context, Edit
from pellucid.models.hooks import acting
from pellucid.models.layout import block_of, main_stack

if TYPE_CHECKING:
    from pellucid.models.subject import Subject


def without_blocks(question: Question, sets: Sequence[tuple[int, ...]], part: str) -> np.ndarray:
    """Return the score without each set of blocks (or parts of them)."""
    subject = question.subject
    name = main_stack(subject.need_layout())
    stack = subject.need_layout().stacks[name]
    through = part == "block" and bool(stack.last_norm)  # zero contributions would still be normed
    kinds = part_kinds(subject) if part == "block" else [part]
    edits: list[tuple[Edit, ...]] = [
        tuple(edit for layer in chosen for edit in _bypass(name, layer))
        if through
        else tuple(Edit(str(Site(name, layer, f"{kind}.out")), "zero") for layer in chosen for kind in kinds)
        for chosen in sets
    ]
    run = score_edits_plain if through else score_edits
    return run(subject, question.tokens, question.readout, edits).sum(1)


def _bypass(name: str, layer: int) -> tuple[Edit, Edit]:
    """Return two edits that hand what enters a block on as what leaves it."""
    entered: dict[int, torch.Tensor] = {}

    def keep(value: torch.Tensor, context: Context) -> torch.Tensor:
        entered[context.row] = value
        return value

    def give(value: torch.Tensor, context: Context) -> torch.Tensor:
        return entered[context.row]

    return Edit(str(Site(name, layer, "resid_pre")), keep), Edit(str(Site(name, layer, "resid_post")), give)


def in_order(question: Question, orders: Sequence[tuple[int, ...]]) -> np.ndarray:
    """Return the score with the blocks in each order."""
    found = []
    for order in orders:
        check_cancelled()
        with question.subject.lock, torch.no_grad(), _ordered(question.subject, order):
            values, _ = read(question.subject, question.tokens, question.readout, [whole(question.tokens)])
        found.append(float(values.double().sum()))
    return np.array(found)


def _ordered(subject: Subject, order: tuple[int, ...]) -> AbstractContextManager[None]:
    """Let block order[i] do the work of block i."""
    layout = subject.need_layout()
    stack = layout.stacks[main_stack(layout)]
    if stack.shared:
        raise CapabilityError(
            f"The blocks of {layout.architecture} share modules, so they have no order to change; use lesion='drop'."
        )
    blocks = [block_of(subject.model, stack, layer)[0] for layer in range(len(order))]
    return acting({blocks[i]: blocks[j].forward for i, j in enumerate(order) if i != j})
