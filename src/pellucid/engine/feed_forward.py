"""Feed-forward layers of one run as functions of a sum: what each summand of the input makes of the output.

Linear steps carry summands by themselves, norms at their divisors. An activation f of a sum s = sum_j s_j is shared by
integrated gradients along the straight way from 0, which gives s_j the share s_j (f(s) - f(0)) / s; a gated unit
f(g) u gives (g_j u / g) (f(g) - A) + u_j A with A the mean of f along the way.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from transformers.activations import ACT2FN

from pellucid.core.axes import Site
from pellucid.core.errors import CapabilityError
from pellucid.core.tokens import Tokens
from pellucid.engine.frozen_norms import FrozenNorm, frozen_norm
from pellucid.engine.quadrature import nodes
from pellucid.engine.transformed import projected
from pellucid.engine.variants import row, whole
from pellucid.models.forward import forward
from pellucid.models.hooks import Hook, hooked
from pellucid.models.layout import Place, block_of, place
from pellucid.models.taps import first_input, view

if TYPE_CHECKING:
    from pellucid.models.subject import Subject

Activation = Callable[[torch.Tensor], torch.Tensor]
USUAL = ("gelu", "gelu_new", "gelu_pytorch_tanh", "silu", "relu")
STEPS = 32


@dataclass(frozen=True, eq=False)
class FeedForward:
    """One layer: the norm in front (None where there is none), the maps into it, its activation and the maps out."""

    norm: FrozenNorm | None
    up: Place
    gate: Place | None
    activation: Activation
    down: torch.Tensor
    bias: torch.Tensor
    sub_norm: FrozenNorm | None
    scale: float

    @torch.no_grad()
    def shares(self, parts: torch.Tensor, rows: slice) -> torch.Tensor:
        """Return what each part adds to the stream: [queries, parts, dimension] from the same.

        `parts` of some positions sum to the stream that the layer reads; the last is what belongs to none, and gets the
        biases. Exact: the shares sum to the layer's output, whatever the precision of A.
        """
        constant = torch.zeros_like(parts[0, 0])
        if self.norm is not None:
            parts, constant = self.norm.rows(rows)(parts), self.norm.bias
        up = _mapped(self.up, parts, constant)
        gate = None if self.gate is None else _mapped(self.gate, parts, constant)
        found = self._activated(up, gate) @ self.down
        found[:, -1] += self.bias
        if self.sub_norm is not None:
            found = self.sub_norm.rows(rows)(found)
            found[:, -1] += self.sub_norm.bias
        return self.scale * found

    def _activated(self, up: torch.Tensor, gate: torch.Tensor | None) -> torch.Tensor:
        """Return the shares of the neurons' activations: [queries, parts, neuron]."""
        if gate is None:
            total = up.sum(1, keepdim=True)
            still = self.activation(torch.zeros_like(total))
            found = up * _divided(self.activation(total) - still, total)
            found[:, -1] += still[:, 0]
            return found
        total, value = gate.sum(1, keepdim=True), up.sum(1, keepdim=True)
        points, weights = nodes("gauss_legendre", STEPS)
        mean = sum(w * self.activation(p * total) for p, w in zip(points.tolist(), weights.tolist(), strict=True))
        return gate * value * _divided(self.activation(total) - mean, total) + up * mean


def _divided(above: torch.Tensor, below: torch.Tensor) -> torch.Tensor:
    tiny = below.abs() < 1e-9
    return torch.where(tiny, 0.0, above / torch.where(tiny, 1.0, below))


def _mapped(at: Place, parts: torch.Tensor, constant: torch.Tensor) -> torch.Tensor:
    """Return the parts behind a linear module [queries, parts, neuron]; the last gets the module's bias."""
    dtype = next((p.dtype for p in at.module.parameters() if p.is_floating_point()), parts.dtype)
    flat = torch.cat([torch.zeros_like(constant)[None], constant[None], parts.flatten(0, 1)]).to(dtype)
    answers = view(at.module(flat if at.tap.flat else flat[None]), at.tap, at.stack.heads, 1)[0].to(parts)
    found = (answers[2:] - answers[0]).unflatten(0, parts.shape[:2])
    found[:, -1] += answers[1]
    return found


@torch.no_grad()
def feed_forward_layers(
    subject: Subject, tokens: Tokens, stack: str, streams: Sequence[torch.Tensor]
) -> list[FeedForward]:
    """Return the feed-forward layers of one run, bottom up; one forward pass.

    `streams` [position, dimension] is what enters each layer's feed-forward part, in front of its norm.

    Raises:
        SiteError: experts that are computed jointly.
        CapabilityError: neurons that are no activation, or gated activation, of linear maps.
    """
    layout, layers = subject.need_layout(), range(len(streams))
    sizes = layout.stacks[stack]
    has = {part: part in sizes.taps for part in ("mlp.gate", "mlp.out_raw")}
    parts = ["mlp.up", "mlp.post", *(part for part, there in has.items() if there)]
    given: dict[int, list[torch.Tensor]] = {}
    places = [place(subject.model, layout, Site(stack, layer, "mlp.up")) for layer in layers]

    def look(args: Any, kwargs: Any, key: int) -> Any:
        given.setdefault(key, []).append(first_input(args, kwargs)[0])
        return args, kwargs

    modules = {id(at.module): at.module for at in places}
    hooks = [Hook(m, "input", lambda a, k, key=key: look(a, k, key)) for key, m in modules.items()]
    names = [str(Site(stack, layer, part)) for layer in layers for part in parts]
    with subject.lock, hooked(hooks):
        output = forward(subject, [row(subject, tokens, whole(tokens))], capture=names)
        found = []
        for layer, (at, stream) in enumerate(zip(places, streams, strict=True)):
            values = {part: output.row(str(Site(stack, layer, part)), 0).to(stream) for part in parts}
            call = at.scope.call if at.scope is not None else 0
            read = given[id(at.module)][call].reshape(len(tokens), -1).to(stream)
            found.append(_layer(subject, at, stack, layer, stream, read, values))
    return found


def _layer(
    subject: Subject, up: Place, stack: str, layer: int, stream: torch.Tensor, read: torch.Tensor,
    values: dict[str, torch.Tensor],
) -> FeedForward:  # fmt: skip
    layout = subject.need_layout()
    gate = place(subject.model, layout, Site(stack, layer, "mlp.gate")) if "mlp.gate" in values else None
    activation = _activation(subject, values)
    out = place(subject.model, layout, Site(stack, layer, "mlp.post")).module
    down, bias = projected(out, values["mlp.post"].shape[1], stream)
    raw = values.get("mlp.out_raw")
    behind = place(subject.model, layout, Site(stack, layer, "mlp.out")).module
    sub_norm = None if raw is None else frozen_norm(behind, raw)
    norm = _norm(subject, stack, layer, stream, read)
    return FeedForward(norm, up, gate, activation, down, bias, sub_norm, layout.stacks[stack].residual_scale)


def _norm(subject: Subject, stack: str, layer: int, stream: torch.Tensor, read: torch.Tensor) -> FrozenNorm | None:
    """Return the norm that makes of the stream what the feed-forward layer reads."""
    if _near(stream, read, subject):
        return None
    block, _ = block_of(subject.model, subject.need_layout().stacks[stack], layer)
    for module in block.modules():
        of_stream = all(p.shape[-1:] == stream.shape[-1:] for p in module.parameters())  # norms of queries are smaller
        if "norm" in type(module).__name__.lower() and of_stream:
            dtype = next((p.dtype for p in module.parameters()), stream.dtype)
            answer: torch.Tensor = module(stream[None].to(dtype))[0]
            if answer.shape == read.shape and _near(answer.to(read), read, subject):
                return frozen_norm(module, stream)
    raise CapabilityError(
        f"No norm of block {layer} leads from the stream to its feed-forward layer; use a method that works on "
        "gradients, such as lrp."
    )


def _activation(subject: Subject, values: dict[str, torch.Tensor]) -> Activation:
    """Return the activation function that makes the neurons of their inputs, by the configuration's name or trial."""
    named = [value for value in vars(subject.model.config).values() if isinstance(value, str) and value in ACT2FN]
    for name in dict.fromkeys([*named, *USUAL]):
        function: Activation = ACT2FN[name]
        gate, up = values.get("mlp.gate"), values["mlp.up"]
        if _near(function(up) if gate is None else function(gate) * up, values["mlp.post"], subject):
            return function
    raise CapabilityError(
        f"The neurons of {type(subject.model).__name__} are no known activation of their inputs; use a method that "
        "works on gradients, such as lrp."
    )


def _near(one: torch.Tensor, other: torch.Tensor, subject: Subject) -> bool:
    eps = max(torch.finfo(getattr(torch, subject.dtype)).eps, 1e-9)
    return bool((one - other).abs().max() <= 2000 * eps * other.abs().max().clamp(min=1e-30))
