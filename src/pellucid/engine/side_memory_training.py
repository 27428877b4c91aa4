"""The training of a side memory: a change of one matrix that answers at facts and is silent on other text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch

from pellucid.core.errors import EditError, InputError
from pellucid.engine.backward import frozen
from pellucid.engine.down_projection import DownProjection
from pellucid.engine.edit_factors import Wanted, loss_of
from pellucid.engine.planning import check_cancelled, in_batches
from pellucid.engine.side_memory import activation_difference, routing_loss
from pellucid.models.batch import Row
from pellucid.models.edits import Edit
from pellucid.models.forward import forward

if TYPE_CHECKING:
    from pellucid.models.subject import Subject


class Task(NamedTuple):
    """What is trained on: rows, their keys where the target is predicted, keys of other text, the margins' unit."""

    rows: list[Wanted]
    keys: list[torch.Tensor]
    others: torch.Tensor
    unit: float
    margins: tuple[float, float, float]


def task_of(
    subject: Subject, matrix: DownProjection, rows: list[Wanted], texts: Sequence[tuple[int, ...]],
    margins: tuple[float, float, float],
) -> Task:  # fmt: skip
    """Return keys, which no change of the matrix moves: those of the facts, and those of all other places."""
    if not texts:
        raise InputError("WISE keeps other text away from its facts, but irrelevant is empty; give texts, or None.")
    found = keys_of(subject, matrix, [row.ids for row in rows])
    keys = [own[list(row.places)] for own, row in zip(found, rows, strict=True)]
    before = [own[: row.prompt - 1] for own, row in zip(found, rows, strict=True)]
    others = torch.cat([*before, *keys_of(subject, matrix, texts)])
    unit = float((torch.cat(keys) @ matrix.matrix.to(others).T).norm(dim=-1).mean())
    return Task(rows, keys, others, unit, margins)


@torch.no_grad()
def keys_of(subject: Subject, matrix: DownProjection, texts: Sequence[tuple[int, ...]]) -> list[torch.Tensor]:
    """Return what enters the matrix in each text: [positions, neuron], float32 or wider."""
    wide = torch.float64 if subject.dtype == "float64" else torch.float32

    def run(batch: list[tuple[int, ...]]) -> list[torch.Tensor]:
        output = forward(subject, [Row(ids) for ids in batch], capture=[matrix.key], stop=True)
        return [output.row(matrix.key, i).to(wide) for i in range(len(batch))]

    return in_batches(texts, [len(ids) for ids in texts], run)


def train_change(
    subject: Subject, matrix: DownProjection, task: Task, mask: torch.Tensor, how: tuple[int, int, float],
    generator: torch.Generator,
) -> tuple[torch.Tensor, list[float]]:  # fmt: skip
    """Return the change [dimension, neuron] that a shard asks for, and its loss at each step."""
    steps, per_step, rate = how
    free, curve = torch.zeros_like(mask).requires_grad_(), list[float]()
    optimiser = torch.optim.Adam([free], lr=rate * float(matrix.matrix.square().mean().sqrt()))
    for _ in range(steps):
        check_cancelled()
        drawn = torch.randperm(len(task.rows), generator=generator)[:per_step].tolist()
        change = free * mask
        inner, outer = (activation_difference(keys, change) / task.unit for keys in (torch.cat(task.keys), task.others))
        loss = routing_loss(inner, outer, *task.margins) + _loss(subject, matrix, task, change, drawn)
        if not bool(torch.isfinite(loss)):
            raise EditError("The loss of the side memory became NaN or infinite; lower rate, or use float32.")
        optimiser.zero_grad()
        loss.backward()
        subject.count(backwards=len(drawn))
        optimiser.step()
        curve.append(float(loss.detach()))
    return (free * mask).detach(), curve


def _loss(
    subject: Subject, matrix: DownProjection, task: Task, change: torch.Tensor, drawn: Sequence[int]
) -> torch.Tensor:
    """Return the mean loss of some facts with the changed matrix at work where their targets are predicted."""
    rows = [
        Row(task.rows[i].ids, edits=(
            Edit(matrix.value, "add", task.keys[i] @ change.T, {"position": list(task.rows[i].places)}),
        ))
        for i in drawn
    ]  # fmt: skip
    with frozen(subject.model), torch.enable_grad():
        logits = forward(subject, rows, grad=True).logits
        losses = [
            loss_of(logits[number, list(task.rows[i].places)], task.rows[i].target) for number, i in enumerate(drawn)
        ]
    return torch.stack(losses).mean()
