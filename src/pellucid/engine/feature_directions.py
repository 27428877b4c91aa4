"""The directions that features write into the residual stream and read from it, and what lies between them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from pellucid.core.axes import Site
from pellucid.core.errors import InputError
from pellucid.core.params import Array
from pellucid.engine.capture import capture
from pellucid.engine.feed_forward import feed_forward_layers
from pellucid.engine.head_patterns import chosen_layers, one_of
from pellucid.engine.head_weights import embedding, head_weights, neuron_weights, norm_before, unembedding
from pellucid.engine.targets import name_of
from pellucid.engine.transformed import attention_blocks
from pellucid.models.layout import place
from pellucid.models.taps import view

if TYPE_CHECKING:
    from pellucid.models.subject import Subject

Named = tuple[torch.Tensor, list[str]]


def directions_of(subject: Subject, given: str | Array, role: str) -> tuple[Named, float]:
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
    rows = neuron_weights(subject, layer) if role == "source" else neuron_inputs(subject, layer)
    return (rows, [f"neuron {layer}.{i}" for i in range(len(rows))]), layer + 0.5


def height_of(through: str) -> float | None:
    """Return how high up what lies between is: a feed-forward layer stands above the heads of its block."""
    if not through:
        return None
    parts = through.split(".")
    digits = all(part.isdigit() for part in (*parts[1:2], *parts[3:4]))
    if parts[0] != "blocks" or not digits or [len(parts), parts[2]] not in ([4, "attn"], [3, "mlp"]):
        raise InputError(f"The path through {through!r} is unknown; use 'blocks.L.attn.H' or 'blocks.L.mlp'.")
    return int(parts[1]) + (0.25 if parts[2] == "attn" else 0.5)


@torch.no_grad()
def neuron_inputs(subject: Subject, layer: int) -> torch.Tensor:
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


def moved_through(subject: Subject, written: torch.Tensor, through: str, prompts: Sequence[Any]) -> torch.Tensor:
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
    inputs = neuron_inputs(subject, layer)
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
