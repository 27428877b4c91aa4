"""WISE: write facts into a copy of one feed-forward matrix, and learn where the copy is to be asked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from pellucid.core.errors import EditError, InputError
from pellucid.core.facts import Fact, as_facts
from pellucid.core.metadata import method
from pellucid.core.params import Count, Fraction, NonNegativeFloat, Positive, PositiveFloat
from pellucid.core.results import Evidence, Learned
from pellucid.engine.backward import frozen
from pellucid.engine.down_projection import DownProjection, down_projections
from pellucid.engine.edit_account import efficacy
from pellucid.engine.edit_factors import Wanted, loss_of, rows_of
from pellucid.engine.own_text import own_texts
from pellucid.engine.planning import check_cancelled, in_batches
from pellucid.engine.side_memory import APPLY, activation_difference, merged, routing_loss, side_edits
from pellucid.engine.training_account import training_account
from pellucid.models.batch import Row
from pellucid.models.edits import Edit
from pellucid.models.forward import forward
from pellucid.models.subject import Subject

TEXTS, LENGTH = 32, 24


class _Task(NamedTuple):
    """What is trained on: rows, their keys where the target is predicted, keys of other text, the margins' unit."""

    rows: list[Wanted]
    keys: list[torch.Tensor]
    others: torch.Tensor
    unit: float
    margins: tuple[float, float, float]


@method(
    rows=("N-ED2",),
    paper="arXiv:2405.14768",
    takes="dataset",
    produces="learned",
    needs=("weights", "gradients", "activations"),
)
def wise(
    subject: Subject, facts: Fact | Mapping[str, Any] | Sequence[Any], *, layer: Count | None = None,
    shards: Positive = 2, share: Fraction = 0.2, inside: PositiveFloat = 1.0, outside: NonNegativeFloat = 0.2,
    apart: PositiveFloat = 0.6, reach: Fraction = 0.88, steps: Positive = 200, per_step: Positive = 8,
    rate: PositiveFloat = 0.2, irrelevant: Sequence[Any] | None = None, seed: Count = 0,
) -> Learned:  # fmt: skip
    """Write facts into a copy W' of a feed-forward matrix W that answers where |(W' - W) k| is large.

    Trained by Adam on -log p of the targets, with W' at work where they are predicted, and on margins of the
    difference: at least `inside` there, at most `outside` on other text, `apart` from each other. The facts are parted
    into shards, each trained on a random `share` of the entries, and the changes merged by sign. The threshold is
    `reach` times the smallest difference at a fact (Wang et al. 2024, arXiv:2405.14768; there a prompt is routed as a
    whole by the mean over its tokens, here each position for itself, so that cached, batched and single runs agree).
    Exact: below the threshold every output is bit for bit as before. Weights never change.

    Use it with `subject.with_(*pellucid.engine.side_memory.side_edits(subject, memory))`.

    Args:
        subject: a decoder with a language-model head.
        facts: what to write, `Fact(prompt, subject, target)` or a list of them.
        layer: of the matrix; None means half way up.
        shards: parts of the facts, each with a change of its own.
        share: of the entries that a shard may change.
        inside: margin at the facts, in mean lengths of W k there.
        outside: margin on other text, likewise.
        apart: margin between the two, likewise.
        reach: share of the smallest difference at a fact from which the copy answers: smaller reaches more wordings,
            and more neighbours.
        steps: of Adam, per shard.
        per_step: facts per step.
        rate: of Adam, as a share of the entries' root mean square.
        irrelevant: other text; None means text that the model writes itself.
        seed: of masks, order and own texts.

    Returns:
        Learned with `change` [dimension, neuron] and `threshold`, in the units of the layer's output.

    Raises:
        CapabilityError: no decoder, mixtures of experts, quantised or offloaded weights.
        InputError, EditError: no other text; a tied matrix, or a loss that is no number.
    """
    asked = as_facts(facts)
    rows = rows_of(subject, asked)
    at = subject.layers // 2 if layer is None else layer
    [matrix] = down_projections(subject, [at])
    own = own_texts(subject, TEXTS, LENGTH, seed) if irrelevant is None else None
    task = _task(subject, matrix, rows, own or [subject.encode(text).ids for text in irrelevant or ()],
                 (inside, outside, apart))  # fmt: skip
    generator, changes, curves = torch.Generator().manual_seed(seed), list[torch.Tensor](), list[list[float]]()
    for part in np.array_split(np.arange(len(rows)), min(shards, len(rows))):
        mask = torch.rand(matrix.matrix.shape, generator=generator) < share
        shard = task._replace(rows=[task.rows[i] for i in part], keys=[task.keys[i] for i in part])
        change, curve = _trained(subject, matrix, shard, mask.to(task.others), (steps, per_step, rate), generator)
        changes.append(change)
        curves.append(curve)
    return _memory(subject, matrix, task, merged(changes), reach, np.mean(curves, 0).tolist(), asked)


def _task(
    subject: Subject, matrix: DownProjection, rows: list[Wanted], texts: Sequence[tuple[int, ...]],
    margins: tuple[float, float, float],
) -> _Task:  # fmt: skip
    """Return keys, which no change of the matrix moves: those of the facts, and those of all other places."""
    if not texts:
        raise InputError("WISE keeps other text away from its facts, but irrelevant is empty; give texts, or None.")
    found = _keys(subject, matrix, [row.ids for row in rows])
    keys = [own[list(row.places)] for own, row in zip(found, rows, strict=True)]
    before = [own[: row.prompt - 1] for own, row in zip(found, rows, strict=True)]
    others = torch.cat([*before, *_keys(subject, matrix, texts)])
    unit = float((torch.cat(keys) @ matrix.matrix.to(others).T).norm(dim=-1).mean())
    return _Task(rows, keys, others, unit, margins)


@torch.no_grad()
def _keys(subject: Subject, matrix: DownProjection, texts: Sequence[tuple[int, ...]]) -> list[torch.Tensor]:
    """Return what enters the matrix in each text: [positions, neuron], float32 or wider."""
    wide = torch.float64 if subject.dtype == "float64" else torch.float32

    def run(batch: list[tuple[int, ...]]) -> list[torch.Tensor]:
        output = forward(subject, [Row(ids) for ids in batch], capture=[matrix.key], stop=True)
        return [output.row(matrix.key, i).to(wide) for i in range(len(batch))]

    return in_batches(texts, [len(ids) for ids in texts], run)


def _trained(
    subject: Subject, matrix: DownProjection, task: _Task, mask: torch.Tensor, how: tuple[int, int, float],
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
    subject: Subject, matrix: DownProjection, task: _Task, change: torch.Tensor, drawn: Sequence[int]
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


def _memory(
    subject: Subject, matrix: DownProjection, task: _Task, change: torch.Tensor, reach: float, curve: list[float],
    facts: Sequence[Fact],
) -> Learned:  # fmt: skip
    """Return the merged change with its threshold, and how it parts facts from other text."""
    least = float(activation_difference(torch.cat(task.keys), change).min())
    outer = activation_difference(task.others, change)
    routed = float((outer >= reach * least).double().mean())
    summary = f"From a difference of {reach * least:.3g} on the copy answers: every fact reaches it, and {routed:.1%} "
    summary += "of the other places."
    values = {"threshold": reach * least, "least at facts": least, "median elsewhere": float(outer.median())}
    memory = Learned(
        f"WISE: {len(facts)} facts in a copy of layer {matrix.layer}",
        tensors={"change": change.cpu().numpy(), "threshold": np.array(reach * least)}, apply=APPLY, site=matrix.value,
        settings={"key": matrix.key, "layer": matrix.layer},
    )  # fmt: skip
    return memory.with_evidence(
        training_account(curve, f"{len(facts)} facts"), Evidence("routing", summary, values | {"routed": routed}),
        efficacy(subject, subject.with_(*side_edits(subject, memory)), facts),
    )  # fmt: skip
