"""The last residual stream as a sum of what every part wrote, and what each part adds to a logit directly."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from pellucid.core.axes import Site
from pellucid.core.results import Evidence
from pellucid.core.tokens import Tokens
from pellucid.engine.direct_path import direct_path
from pellucid.engine.frozen_norms import FrozenNorm, frozen_norm
from pellucid.engine.readout import Readout
from pellucid.engine.transformed import projected
from pellucid.engine.variants import row, whole
from pellucid.models.forward import Output, forward
from pellucid.models.layout import Stack, block_of, depth, main_stack, place, submodule

if TYPE_CHECKING:
    from pellucid.models.subject import Subject

SMALLER = {"attn": "attn.z", "mlp": "mlp.post"}


@dataclass(frozen=True, eq=False)
class Part:
    """What one sub-layer wrote: `kind` is "attn", "cross_attn" or "mlp" of a layer ("embedding" before all).

    `written` [position, dimension] goes into the residual stream (behind a sub-layer norm, scaled), `direction`
    [position, dimension] weighs it: what is behind it, with every norm at its divisor.
    """

    layer: int
    kind: str
    written: torch.Tensor
    direction: torch.Tensor

    @property
    def effect(self) -> float:
        """Return what the part adds to the value directly."""
        return float((self.written.double() * self.direction.double()).sum())


@dataclass(frozen=True, eq=False)
class StreamParts:
    """A logit or difference of logits, shared out: value = start.effect + sum of the parts' effects + constant.

    `start` is what the blocks begin from, embeddings and positions; `parts` come bottom up; `constant` is what biases
    of norms and of the head add. `output` holds what was captured. `linearised` says that norms stand between parts and
    stream, as in post-norm models.
    """

    value: float
    start: Part
    parts: tuple[Part, ...]
    constant: float
    linearised: bool
    output: Output

    def evidence(self, effects: float, apart: dict[str, float]) -> Evidence:
        """Return the evidence that shown effects, what is kept apart and the constant sum to the value."""
        total = effects + sum(apart.values()) + self.constant
        gap = abs(total - self.value)
        rest = "".join(f", {name} {value:.3g}" for name, value in apart.items())
        text = (
            f"The value {self.value:.3g} is the effects shown {effects:.3g}{rest}, and biases of norms and head "
            f"{self.constant:.3g}, within {gap:.2g}"
        )
        text += "; norms behind the blocks are linearised at their divisors." if self.linearised else "."
        values = {"value": self.value, "shown": effects, "constants": self.constant, "residual": gap, **apart}
        return Evidence("sum of direct effects", text, values, ok=bool(gap < 1e-4 * max(1.0, abs(self.value))))


def part_kinds(subject: Subject) -> list[str]:
    """Return the kinds of sub-layers of the stack that feeds the head, in the order in which they act."""
    stack = subject.need_layout().stacks[main_stack(subject.need_layout())]
    return ["attn", *(["cross_attn"] if stack.cross_attention else []), "mlp"]


def part_sites(subject: Subject) -> list[str]:
    """Return the sites of the sub-layers' outputs, bottom up."""
    layout = subject.need_layout()
    name = main_stack(layout)
    layers = range(depth(subject.model, layout, name))
    return [str(Site(name, layer, f"{kind}.out")) for layer in layers for kind in part_kinds(subject)]


@torch.no_grad()
def stream_parts(subject: Subject, tokens: Tokens, readout: Readout, sites: Sequence[str] = ()) -> StreamParts:
    """Return every sub-layer's contribution to a readout of logits.

    Exact: the effects and the constant sum to the value, up to rounding, on pre-norm, parallel and sub-layer-norm
    models, and on post-norm ones by taking the norms behind each sum at their divisors. Costs two forward passes and
    one backward pass through the head.

    Args:
        subject: the model.
        tokens: the prompt.
        readout: a logit or a difference of logits, as from `linear_readout`.
        sites: further sites to capture.

    Raises:
        ModelError: a norm between the parts and the head is no layer norm or root-mean-square norm.
    """
    layout = subject.need_layout()
    name = main_stack(layout)
    stack, layers = layout.stacks[name], range(depth(subject.model, layout, name))
    path = direct_path(subject, tokens, readout)
    names = [*part_sites(subject), *(str(Site(name, layer, "resid_pre")) for layer in layers), *sites]
    output = forward(subject, [row(subject, tokens, whole(tokens))], capture=list(dict.fromkeys(names)))
    direction, constant, found = path.directions[0], float(path.constants[0]), list[Part]()
    with subject.lock:
        for layer in reversed(layers):
            wrote = {
                kind: stack.residual_scale * output.row(str(Site(name, layer, f"{kind}.out")), 0).to(direction)
                for kind in part_kinds(subject)
            }
            before = output.row(str(Site(name, layer, "resid_pre")), 0).to(direction)
            norms = _norms_behind(subject, stack, layer, before, wrote)
            for kind in reversed(list(wrote)):
                norm = norms.get(kind)
                if norm is not None:
                    constant += float((direction * norm.bias).sum())
                    direction = norm.back(direction)
                found.append(Part(layer, kind, wrote[kind], direction))
    start = Part(0, "embedding", output.row(str(Site(name, 0, "resid_pre")), 0).to(direction), direction)
    return StreamParts(float(path.values[0]), start, tuple(found[::-1]), constant, bool(stack.last_norm), output)


def _norms_behind(
    subject: Subject, stack: Stack, layer: int, before: torch.Tensor, wrote: dict[str, torch.Tensor]
) -> dict[str, FrozenNorm]:
    """Return the norm behind the sum of stream and each sub-layer's output: none in pre-norm models."""
    block, _ = block_of(subject.model, stack, layer)
    paths = {"attn": stack.mid_norm, "cross_attn": stack.cross_norm, "mlp": stack.last_norm}
    found: dict[str, FrozenNorm] = {}
    stream = before
    for kind, update in wrote.items():
        stream = stream + update
        if paths[kind]:
            found[kind] = frozen_norm(submodule(block, paths[kind]), stream)
            stream = found[kind](stream) + found[kind].bias
    return found


@torch.no_grad()
def smaller_parts(subject: Subject, shared: StreamParts, part: Part) -> tuple[torch.Tensor, float]:
    """Return the effects of a part's heads (or neurons, of an "mlp" part), and that of its biases.

    The captured sites of `shared` must hold the part's `attn.z` or `mlp.post`. Exact: they sum to the part's effect.
    """
    layout = subject.need_layout()
    name = main_stack(layout)
    stack = layout.stacks[name]
    site = Site(name, part.layer, SMALLER[part.kind])
    value = shared.output.row(str(site), 0).to(part.direction)
    direction, constant = stack.residual_scale * part.direction, 0.0
    raw, out = (Site(name, part.layer, f"{part.kind}.{end}") for end in ("out_raw", "out"))
    if raw.part in stack.taps:
        written = shared.output.row(str(raw), 0).to(direction)
        norm = frozen_norm(place(subject.model, layout, out).module, written)
        constant += float((direction * norm.bias).sum())
        direction = norm.back(direction)
    flat = value.flatten(1)
    weight, bias = projected(place(subject.model, layout, site).module, flat.shape[1], direction)
    constant += float((direction * bias).sum())
    effects = (flat * (direction @ weight.T)).view(value.shape)
    return effects.double().sum(dim=0) if value.ndim == 2 else effects.double().sum(dim=(0, 2)), constant


def smaller_sites(subject: Subject, kind: str) -> list[str]:
    """Return the sites to capture for `smaller_parts` of every "attn" or "mlp"."""
    layout = subject.need_layout()
    name = main_stack(layout)
    parts = [SMALLER[kind], *([f"{kind}.out_raw"] if f"{kind}.out_raw" in layout.stacks[name].taps else [])]
    layers = range(depth(subject.model, layout, name))
    return [str(Site(name, layer, part)) for layer in layers for part in parts]
