"""Greedy text under many edits at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from pellucid.core.tokens import Tokens
from pellucid.engine.generation import end_ids
from pellucid.engine.planning import in_batches
from pellucid.engine.variants import row, whole
from pellucid.models.edits import Edit
from pellucid.models.forward import forward

if TYPE_CHECKING:
    from pellucid.models.subject import Subject


@torch.no_grad()
def greedy_under(
    subject: Subject, tokens: Tokens, edits: Sequence[tuple[Edit, ...]], length: int
) -> list[tuple[int, ...]]:
    """Return the most likely continuation of a decoder's prompt under each set of edits, at most `length` ids.

    A continuation ends before an end-of-text token, which is kept where it comes first. Exact: every step is a full
    forward, all sets in batches.
    """
    found: list[tuple[int, ...]] = [()] * len(edits)
    waiting, ends = list(range(len(edits))), end_ids(subject)

    def step(batch: list[int]) -> list[int]:
        rows = [row(subject, tokens, whole(tokens), found[i], edits[i]) for i in batch]
        last = torch.tensor([[len(tokens) - 1 + len(found[i])] for i in batch])
        return [int(token) for token in forward(subject, rows, wanted=last).logits[:, 0].argmax(-1)]

    for _ in range(length):
        lengths = [len(tokens) + len(found[i]) for i in waiting]
        drawn = dict(zip(waiting, in_batches(waiting, lengths, step), strict=True))
        for i, token in drawn.items():
            if token not in ends or not found[i]:
                found[i] = (*found[i], token)
        waiting = [i for i in waiting if drawn[i] not in ends]
    return found
