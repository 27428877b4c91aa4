"""An eraser per layer as a result: its tensors, and what a linear probe finds before and after."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from pellucid.core.errors import InputError
from pellucid.core.results import Evidence, Learned
from pellucid.engine.batched_probes import logistic_probes
from pellucid.engine.directions import Activations, activations
from pellucid.engine.erasure import Eraser, one_hot

if TYPE_CHECKING:
    from pellucid.models.subject import Subject

UNDECIDED = 1e-9  # logits below are rounding: classes of equal size that a probe cannot tell apart


def labelled(
    subject: Subject, prompts: Sequence[Any], labels: Sequence[Any], site: str, layers: Sequence[int] | None,
    position: int | str,
) -> tuple[Activations, np.ndarray]:  # fmt: skip
    """Return the activations of labelled prompts; raise `InputError` where there is not one label for each."""
    if len(prompts) != len(labels):
        raise InputError(f"{len(labels)} labels were given for {len(prompts)} prompts; give one for each.")
    found = np.array([str(label) for label in labels])
    one_hot(found)
    return activations(subject, prompts, site, layers=layers, position=position), found  # type: ignore[arg-type]


def eraser_result(
    title: str, read: Activations, labels: np.ndarray, erasers: Sequence[Eraser], *evidence: Evidence
) -> Learned:
    """Return erasers of each layer as `projections` [layer, dimension, dimension] and `means` [layer, dimension].

    The evidence compares a logistic probe of each class on the rows before and after, with the larger class as chance.
    """
    after = np.stack([eraser(rows) for eraser, rows in zip(erasers, read.values, strict=True)])
    told = one_hot(labels)[:, 1:] if len(np.unique(labels)) == 2 else one_hot(labels)
    chance = float(np.mean([max(column.mean(), 1 - column.mean()) for column in told.T]))
    before = _accuracies(read.values, told)
    left = _accuracies(after, told)
    centred = after - after.mean(1, keepdims=True)
    cross = np.abs(np.einsum("lpd,pk->ldk", centred, told - told.mean(0)) / len(told)).max((1, 2))
    moved = np.linalg.norm(after - read.values, axis=-1).mean(1) / np.maximum(read.norms, 1e-30)
    check = Evidence(
        "what a linear probe finds",
        f"On the {len(labels)} prompts erased from, probes are right on {100 * before.mean():.1f} % before and "
        f"{100 * left.mean():.1f} % after, averaged over layers (always the larger class: {100 * chance:.1f} %); the "
        f"largest cross-covariance left is {cross.max():.2g}, and values move by {100 * moved.mean():.1f} % of their "
        "norm.",
        {
            "before": float(before.mean()), "after": float(left.mean()), "chance": chance,
            "cross_covariance": float(cross.max()), "moved": float(moved.mean()),
            "rank": float(np.mean([eraser.rank for eraser in erasers])),
        },
        {"x": tuple(map(float, read.layers)), "before": tuple(before.tolist()), "after": tuple(left.tolist())},
        ok=bool(left.max() <= chance + 0.02),
    )  # fmt: skip
    return Learned(
        title=title,
        tensors={
            "projections": np.stack([eraser.projection for eraser in erasers]),
            "means": np.stack([eraser.mean for eraser in erasers]),
        },
        apply="eraser",
        site=read.site,
        settings={"layers": list(read.layers)},
        evidence=(check, *evidence),
    )


def _accuracies(values: np.ndarray, told: np.ndarray) -> np.ndarray:
    """Return the accuracy of a probe in each layer on the rows it was fitted to, averaged over classes: [layer]."""
    rows, found = torch.as_tensor(values), []
    for column in told.T:
        labels = torch.as_tensor(column)
        logits = logistic_probes(rows, labels).logits(rows)
        found.append(((logits > UNDECIDED) == (labels > 0.5)).double().mean(-1))
    accuracy: np.ndarray = torch.stack(found).mean(0).numpy()
    return accuracy
