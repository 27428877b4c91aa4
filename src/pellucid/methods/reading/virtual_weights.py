"""Virtual weights: how strongly what one feature writes is read by another, straight or through a head or layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from pellucid.core.axes import Site
from pellucid.core.errors import InputError
from pellucid.core.metadata import method
from pellucid.core.params import Array, Positive
from pellucid.core.results import Evidence, Table
from pellucid.engine.capture import capture
from pellucid.engine.feed_forward import feed_forward_layers
from pellucid.engine.head_patterns import chosen_layers, one_of
from pellucid.engine.head_weights import (
    embedding,
    head_weights,
    largest_pairs,
    neuron_weights,
    norm_before,
    unembedding,
)
from pellucid.engine.targets import name_of
from pellucid.engine.transformed import attention_blocks
from pellucid.models.layout import place
from pellucid.models.subject import Subject
from pellucid.models.taps import view

Named = tuple[torch.Tensor, list[str]]


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
    (written, names), start = _directions(subject, source, "source")
    (read, targets), end = _directions(subject, reader, "reader")
    middle = _number(through)
    way = f" through {through}" if through else ""
    if (middle is None and start >= end) or (middle is not None and not start < middle < end):
        raise InputError(
            f"Nothing written by {_said(source)} reaches {_said(reader)}{way}; name them from the bottom up."
        )
    moved = _through(subject, written, through, prompts)
    found = largest_pairs(moved.to(read), read, count)
    rows = tuple((names[i], targets[j], value) for i, j, value in found)
    return Table(
        title=f"Weights from {_said(source)} to {_said(reader)}" + way,
        columns=("from", "to", "weight"),
        rows=rows,
    ).with_evidence(_spread(moved.to(read), read, rows))


def _directions(subject: Subject, given: str | Array, role: str) -> tuple[Named, float]:
    """Return directions [n, dimension] with a name each, and how high up they are written or read."""
    if not isinstance(given, str):
        rows = torch.as_tensor(given)
        width = embedding(subject).shape[1]
        if rows.ndim != 2 or rows.shape[1] != width:
            raise InputError(f"The {role} has the shape {tuple(rows.shape)}; give directions [n, {width}].")
        rows = rows.to(embedding(subject))
        return (rows, [f"{role} {i}" for i in range(len(rows))]), -1.0 if role == "source" else float("inf")
    if given == ("embed" if role == "source" else "logits"):
        rows = embedding(subject) if role == "source" else unembedding(subject)
        names = [name_of(subject, i) for i in range(len(rows))]
        return (rows, names), -1.0 if role == "source" else float("inf")
    parts = given.split(".")
    if len(parts) != 3 or parts[0] != "blocks" or not parts[1].isdigit() or parts[2] != "mlp":
        own = "embed" if role == "source" else "logits"
        raise InputError(f"The {role} {given!r} is unknown; use {own!r}, 'blocks.L.mlp' or directions [n, dimension].")
    layer = chosen_layers(subject, int(parts[1]))[0]
    rows = neuron_weights(subject, layer) if role == "source" else _inputs(subject, layer)
    return (rows, [f"neuron {layer}.{i}" for i in range(len(rows))]), layer + 0.5


def _number(through: str) -> float | None:
    """Return how high up what lies between is: a feed-forward layer stands above the heads of its block."""
    if not through:
        return None
    parts = through.split(".")
    digits = all(part.isdigit() for part in (*parts[1:2], *parts[3:4]))
    if parts[0] != "blocks" or not digits or [len(parts), parts[2]] not in ([4, "attn"], [3, "mlp"]):
        raise InputError(f"The path through {through!r} is unknown; use 'blocks.L.attn.H' or 'blocks.L.mlp'.")
    return int(parts[1]) + (0.25 if parts[2] == "attn" else 0.5)


@torch.no_grad()
def _inputs(subject: Subject, layer: int) -> torch.Tensor:
    """Return what each neuron reads from the stream: [neuron, dimension], by its gate where it has one."""
    layout = subject.need_layout()
    part = "mlp.gate" if "mlp.gate" in layout.stacks[""].taps else "mlp.up"
    at = place(subject.model, layout, Site("", layer, part))
    gain, centred = norm_before(subject, str(Site("", layer, part)))
    dtype = next(p.dtype for p in at.module.parameters() if p.is_floating_point())
    units = torch.cat([torch.zeros_like(gain)[None], torch.eye(len(gain)).to(gain)]).to(dtype)
    with subject.lock:
        answers = view(at.module(units if at.tap.flat else units[None]), at.tap, at.stack.heads, 1)[0].to(gain)
    weights = gain[:, None] * (answers[1:] - answers[0])
    return (weights - weights.mean(0, keepdim=True) if centred else weights).T.contiguous()


def _through(subject: Subject, written: torch.Tensor, through: str, prompts: Sequence[Any]) -> torch.Tensor:
    """Return what becomes of written directions on the way: [n, dimension]."""
    if not through:
        return written
    parts = through.split(".")
    layer = chosen_layers(subject, int(parts[1]))[0]
    if parts[2] == "attn":
        weights = head_weights(subject, layer)
        head = one_of(int(parts[3]), len(weights.value), "head")
        return written.to(weights.value) @ weights.value[head] @ weights.output[head]
    if "mlp.gate" in subject.need_layout().stacks[""].taps or not prompts:
        raise InputError(
            f"A path through {through} is linear at the mean slope of its activations, which takes `prompts` and a "
            "layer without gate; give prompts, or go through a head."
        )
    inputs = _inputs(subject, layer)
    return ((written.to(inputs) @ inputs.T) * _slope(subject, layer, prompts)) @ neuron_weights(subject, layer)


def _slope(subject: Subject, layer: int, prompts: Sequence[Any]) -> torch.Tensor:
    """Return the mean slope [neuron] of a layer's activations over the tokens of prompts."""
    slopes = []
    for prompt in prompts:
        tokens = subject.encode(prompt)
        blocks = attention_blocks(subject, tokens)
        streams = [block.before if block.parallel else block.middle for block in blocks]
        activation = feed_forward_layers(subject, tokens, "", streams)[layer].activation
        site = f"blocks.{layer}.mlp.up"
        before = capture(subject, tokens, [site])[site].to(streams[0]).requires_grad_()
        with torch.enable_grad():
            slopes.append(torch.autograd.grad(activation(before).sum(), before)[0])
    return torch.cat(slopes).mean(0)


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
