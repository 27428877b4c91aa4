"""Contextual decomposition: every activation split into the part that comes from a source, and the rest.

The split runs along with one forward pass as a forward-mode tangent: linear steps carry it by themselves, and the steps
that are not linear follow the rules below instead of their derivative.
"""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch.autograd import forward_ad

from pellucid.core.tokens import Tokens
from pellucid.engine.interception import ACTIVATIONS, ROOTS, Call, intercepted
from pellucid.engine.planning import in_batches
from pellucid.engine.reading import read
from pellucid.engine.readout import Readout
from pellucid.engine.variants import whole
from pellucid.models.edits import Context, Edit

if TYPE_CHECKING:
    from pellucid.models.subject import Subject

with warnings.catch_warnings():
    # On first use, forward mode loads these, and torch warns of how it wrote them.
    warnings.simplefilter("ignore", DeprecationWarning)
    importlib.import_module("torch._decomp.decompositions_for_jvp")


def decomposed(
    subject: Subject,
    tokens: Tokens,
    readout: Readout,
    sources: Sequence[tuple[str, dict[str, Any]]],
    activation: Literal["last", "average"],
) -> torch.Tensor:
    """Return how much of the readout comes from each source: [sources, targets].

    Args:
        subject: the model.
        tokens: the prompt.
        readout: what is read.
        sources: site and places (axis name to indices) whose whole value is the part that is followed.
        activation: what a function f of total and rest is worth to the part, see `Split`.
    """

    def run(batch: list[tuple[str, dict[str, Any]]]) -> list[torch.Tensor]:
        edits = [(Edit(site, _followed, where=where),) for site, where in batch]
        with forward_ad.dual_level(), intercepted(subject, Split(activation)):
            values, _ = read(subject, tokens, readout, [whole(tokens)] * len(batch), edits=edits)
            part = forward_ad.unpack_dual(values).tangent
            return list(torch.zeros_like(values) if part is None else part.clone())

    length = len(tokens) + max(len(forced) for forced in readout.forced)
    with torch.no_grad():
        return torch.stack(in_batches(list(sources), [length] * len(sources), run))


def _followed(value: torch.Tensor, context: Context) -> torch.Tensor:
    return forward_ad.make_dual(value.detach(), value.detach().clone())


class Split:
    """The propagation of the part; total = part + rest at every step.

    A bias is shared by size: |part| / (|part| + |rest|). Attention patterns and the divisors of norms belong to the
    total. An activation gives the part f(total) - f(rest) ("last": it comes after the rest), or the mean of that and
    f(part) - f(0) ("average"); products of two values likewise.
    """

    def __init__(self, activation: Literal["last", "average"]) -> None:
        self.activation, self.stage = activation, 0.0

    def depends(self, value: Any) -> bool:
        """Return whether a value carries a part."""
        return isinstance(value, torch.Tensor) and forward_ad.unpack_dual(value).tangent is not None

    def linear(self, call: Call, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        """Multiply both parts by the weights and share the bias by their size."""
        if bias is None or not self.depends(x):
            return call(x, weight, bias)
        total, part = parts(x)
        through = call(part, weight, None)
        rest = call(total, weight, None) - through
        return forward_ad.make_dual(call(total, weight, bias), through + _shared(bias, through, rest))

    def product(self, call: Call, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        """Give the part what the rest alone does not make."""
        (total_a, part_a), (total_b, part_b) = parts(a), parts(b)
        value = call(total_a, total_b)
        part = value - call(total_a - part_a, total_b - part_b)
        if self.activation == "average":
            part = (part + call(part_a, part_b)) / 2
        return forward_ad.make_dual(value, part)

    def scaled(self, call: Call, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        """Multiply both parts by the constant."""
        return call(a, b)

    def add(self, call: Call, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        """Add the parts; constants belong to the rest."""
        return call(a, b)

    def elementwise(self, call: Call, x: torch.Tensor, name: str, value: torch.Tensor | None = None) -> torch.Tensor:
        """Give the part what an activation of the rest alone does not make; a norm's divisor belongs to the total."""
        total, part = parts(x)
        if name in ROOTS:
            return call(total)
        if name not in ACTIVATIONS and value is None:
            return call(x)
        value = call(total) if value is None else value
        gain = value - call(total - part)
        if self.activation == "average":
            gain = (gain + call(part) - call(torch.zeros_like(part))) / 2
        return forward_ad.make_dual(value.detach(), gain)

    def softmax(self, call: Call, x: torch.Tensor, dim: int) -> torch.Tensor:
        """Keep the pattern of the total."""
        return call(parts(x)[0], dim)

    def attention(
        self, call: Call, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor | None
    ) -> torch.Tensor | None:
        """Have attention taken apart."""
        return None

    def logsumexp(self, call: Call, x: torch.Tensor, dim: int) -> torch.Tensor:
        """Follow the derivative: it belongs to the measure that is read."""
        return call(x, dim)

    def layer_norm(
        self, x: torch.Tensor, weight: torch.Tensor | None, bias: torch.Tensor | None, eps: float
    ) -> torch.Tensor:
        """Centre both parts, divide them by the total's spread and share the bias by the size of the inputs."""
        total, part = parts(x)
        value, moved = normed(total, part, weight, eps)
        if bias is not None:
            value, moved = value + bias, moved + _shared(bias, part, total - part)
        return forward_ad.make_dual(value, moved)


def normed(
    total: torch.Tensor, part: torch.Tensor, weight: torch.Tensor | None, eps: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return a layer norm, without its bias, of a total and of a part that is divided by the total's spread."""
    factor = (total.var(-1, unbiased=False, keepdim=True) + eps).rsqrt()
    factor = factor if weight is None else factor * weight
    return (total - total.mean(-1, keepdim=True)) * factor, (part - part.mean(-1, keepdim=True)) * factor


def parts(value: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the total of a value and the part that is followed."""
    total, part = forward_ad.unpack_dual(value)
    return total.detach(), torch.zeros_like(total) if part is None else part.detach()


def _shared(bias: torch.Tensor, part: torch.Tensor, rest: torch.Tensor) -> torch.Tensor:
    size = part.abs() + rest.abs()
    return bias * torch.where(size == 0, 0.0, part.abs() / torch.where(size == 0, 1.0, size))
