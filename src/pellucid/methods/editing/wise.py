"""WISE: write facts into a copy of one feed-forward matrix, and learn where the copy is to be asked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from pellucid.core.facts import Fact, as_facts
from pellucid.core.metadata import method
from pellucid.core.params import Count, Fraction, NonNegativeFloat, Positive, PositiveFloat
from pellucid.core.results import Evidence, Learned
from pellucid.engine.down_projection import DownProjection, down_projections
from pellucid.engine.edit_account import efficacy
from pellucid.engine.edit_factors import rows_of
from pellucid.engine.own_text import own_texts
from pellucid.engine.side_memory import APPLY, activation_difference, merged, side_edits
from pellucid.engine.side_memory_training import Task, task_of, train_change
from pellucid.engine.training_account import training_account
from pellucid.models.subject import Subject

TEXTS, LENGTH = 32, 24


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
    task = task_of(subject, matrix, rows, own or [subject.encode(text).ids for text in irrelevant or ()],
                 (inside, outside, apart))  # fmt: skip
    generator, changes, curves = torch.Generator().manual_seed(seed), list[torch.Tensor](), list[list[float]]()
    for part in np.array_split(np.arange(len(rows)), min(shards, len(rows))):
        mask = torch.rand(matrix.matrix.shape, generator=generator) < share
        shard = task._replace(rows=[task.rows[i] for i in part], keys=[task.keys[i] for i in part])
        change, curve = train_change(subject, matrix, shard, mask.to(task.others), (steps, per_step, rate), generator)
        changes.append(change)
        curves.append(curve)
    return _memory(subject, matrix, task, merged(changes), reach, np.mean(curves, 0).tolist(), asked)


def _memory(
    subject: Subject, matrix: DownProjection, task: Task, change: torch.Tensor, reach: float, curve: list[float],
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
