"""Virtual weights: how strongly what one feature writes is read by another, straight or through a head or layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from pellucid.core.errors import InputError
from pellucid.core.metadata import method
from pellucid.core.params import Array, Positive
from pellucid.core.results import Evidence, Table
from pellucid.engine.feature_directions import directions_of, height_of, moved_through
from pellucid.engine.head_weights import (
    largest_pairs,
)
from pellucid.models.subject import Subject


@method(
    rows=("MEC-1",),
    paper="Olah et al. 2020, Zoom In: An Introduction to Circuits",
    takes="models",
    produces="table",
    needs=("weights",),
    cost="prompts*F",
)
def virtual_weights(
    subject: Subject, *, source: str | Array = "embed", reader: str | Array = "logits", through: str = "",
    prompts: Sequence[Any] = (), count: Positive = 20,
) -> Table:  # fmt: skip
    """List the largest weights between what features write into the residual stream and what others read from it.

    W[i, j] = s_i M r_j with s the directions that are written, r those that are read (the gain of the norm in front
    within, its divisor left out) and M what lies between: nothing; W_V W_O of a head, for a token that attends to the
    source's; or a feed-forward layer, linearised as W_in diag(mean slope of its activations on `prompts`) W_out. Exact
    for weights straight or through a head, an approximation through a feed-forward layer. The features and weights
    between them are those of Olah et al. 2020; virtual weights are named by Elhage et al. 2021.

    Args:
        subject: the model, from `pellucid.load`; pre-norm, one stack.
        source: "embed" (tokens), "blocks.0.mlp" (its neurons), or directions [n, dimension].
        reader: "logits" (tokens), "blocks.3.mlp" (the inputs of its neurons; the gate's where there is one), or
            directions [n, dimension].
        through: "", "blocks.2.attn.1" or "blocks.2.mlp" (without a gate).
        prompts: what a feed-forward layer is linearised at.
        count: weights that are listed.

    Returns:
        Table with the columns from, to, weight, largest first.

    Raises:
        InputError: a name that is unknown, a path that runs downwards, or no prompts to linearise at.
        CapabilityError: a model without one pre-norm stack.
    """
    (written, names), start = directions_of(subject, source, "source")
    (read, targets), end = directions_of(subject, reader, "reader")
    middle = height_of(through)
    way = f" through {through}" if through else ""
    if (middle is None and start >= end) or (middle is not None and not start < middle < end):
        raise InputError(
            f"Nothing written by {_said(source)} reaches {_said(reader)}{way}; name them from the bottom up."
        )
    moved = moved_through(subject, written, through, prompts)
    found = largest_pairs(moved.to(read), read, count)
    rows = tuple((names[i], targets[j], value) for i, j, value in found)
    return Table(
        title=f"Weights from {_said(source)} to {_said(reader)}" + way,
        columns=("from", "to", "weight"),
        rows=rows,
    ).with_evidence(_spread(moved.to(read), read, rows))


def _said(given: str | Array) -> str:
    return given if isinstance(given, str) else "the given directions"


def _spread(moved: torch.Tensor, read: torch.Tensor, rows: tuple[tuple[str, str, float], ...]) -> Evidence:
    """Return how large weights are as a whole: their root mean square, without making all of them."""
    squares = float(((moved.T @ moved) * (read.T @ read)).sum())
    size = (max(squares, 0.0) / (len(moved) * len(read))) ** 0.5
    largest = rows[0][2] if rows else 0.0
    return Evidence(
        "spread of the weights",
        f"The {len(moved)} x {len(read)} weights have a root mean square of {size:.3g}; the largest is {largest:.3g}.",
        {"root_mean_square": size, "largest": largest},
    )
