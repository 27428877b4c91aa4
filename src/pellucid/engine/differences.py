"""DeepLIFT's propagation: every step hands back differences from a reference run, so that they add up exactly.

A run on the reference is recorded step by step; the run on the input is compared with it in the same order.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch

from pellucid.core.errors import InputError
from pellucid.engine.interception import ROOTS, Call, intercepted
from pellucid.engine.rules import Absorbed
from pellucid.engine.through import through

if TYPE_CHECKING:
    from pellucid.models.subject import Subject


class Differences:
    """The propagation of multipliers m = share of the output's difference per unit of the input's difference."""

    def __init__(self) -> None:
        self.stage = 0.0
        self.recorded: list[torch.Tensor] = []
        self.place: int | None = None
        self.divisors: list[torch.Tensor] = []  # kept alive, so that no other tensor takes their identity

    @contextmanager
    def recording(self, subject: Subject) -> Iterator[Absorbed]:
        """Remember the inputs of every step of the runs in this context as the reference."""
        self.recorded, self.place = [], None
        with intercepted(subject, self):
            yield Absorbed()

    @contextmanager
    def comparing(self, subject: Subject) -> Iterator[Absorbed]:
        """Let backward passes of the runs in this context carry multipliers against the reference."""
        self.place = 0
        with intercepted(subject, self):
            yield Absorbed()

    def depends(self, value: Any) -> bool:
        """Return whether gradients flow through a value."""
        return isinstance(value, torch.Tensor) and value.requires_grad

    def linear(self, call: Call, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        """Hand differences back by the weights; a bias has none."""
        return call(x, weight, bias)

    def scaled(self, call: Call, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        """Hand differences back by the constant factor."""
        return call(a, b)

    def add(self, call: Call, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        """Hand the difference to each term."""
        return call(a, b)

    def product(self, call: Call, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        """Share the difference of a product: each factor's own difference times the other's mean.

        The inverse root of a norm counts its difference at the reference instead, and what it divides at the input: a
        reference of zero has a huge inverse root, whose mean with the input's would drown the rest in rounding.
        """
        a0, b0 = self._reference(a), self._reference(b)
        if self.place is None:
            return call(a, b)
        if any(b is divisor for divisor in self.divisors):
            return _divided(call, (a, a0), b)
        if any(a is divisor for divisor in self.divisors):
            return _divided(lambda x, y: call(y, x), (b, b0), a)
        return _times(call, (a, a0), (b, b0))

    def elementwise(self, call: Call, x: torch.Tensor, name: str, value: torch.Tensor | None = None) -> torch.Tensor:
        """Follow the rescale rule: the slope of the chord between reference and input."""
        x0 = self._reference(x)
        if self.place is None:
            return call(x)
        result = _chord(call, x, x0, relative=name in ROOTS)
        if name == "rsqrt":
            self.divisors.append(result)
        return result

    def softmax(self, call: Call, x: torch.Tensor, dim: int) -> torch.Tensor:
        """Take a softmax apart into exponential, sum, reciprocal and product."""
        x0 = self._reference(x)
        if self.place is None:
            return call(x, dim)
        (e, e0), (total, total0), _ = _exponentials(x, x0, dim)
        inverse = _chord(torch.reciprocal, total, total0)
        return _times(torch.mul, (e, e0), (inverse.expand_as(e), (1 / total0).expand_as(e0)))

    def attention(
        self, call: Call, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor | None
    ) -> torch.Tensor | None:
        """Have attention taken apart."""
        return None

    def logsumexp(self, call: Call, x: torch.Tensor, dim: int) -> torch.Tensor:
        """Take the logarithm of a sum of exponentials apart in the same way."""
        x0 = self._reference(x)
        if self.place is None:
            return call(x, dim)
        _, (total, total0), shift = _exponentials(x, x0, dim)
        return (_chord(torch.log, total, total0) + shift).squeeze(dim)

    def layer_norm(
        self, x: torch.Tensor, weight: torch.Tensor | None, bias: torch.Tensor | None, eps: float
    ) -> torch.Tensor:
        """Take a layer norm apart into centring, square, mean, inverse root and product."""
        x0 = self._reference(x)
        if self.place is None:
            return torch.nn.functional.layer_norm(x, x.shape[-1:], weight, bias, eps)
        centred, centred0 = x - x.mean(-1, keepdim=True), x0 - x0.mean(-1, keepdim=True)
        spread = _chord(torch.square, centred, centred0).mean(-1, keepdim=True) + eps
        spread0 = centred0.square().mean(-1, keepdim=True) + eps
        inverse = _chord(torch.rsqrt, spread, spread0, relative=True)
        normed = _divided(torch.mul, (centred, centred0), inverse)
        normed = normed if weight is None else normed * weight
        return normed if bias is None else normed + bias

    def _reference(self, value: torch.Tensor) -> torch.Tensor:
        """Record a value, or return the recorded value of the same step."""
        if self.place is None:
            self.recorded.append(value.detach().clone())
            return value
        found = self.recorded[self.place] if self.place < len(self.recorded) else value[:0]
        self.place += 1
        if found.shape != value.shape:
            raise InputError(
                f"The run on the baseline took other steps than the run on the input (shapes {tuple(found.shape)} and "
                f"{tuple(value.shape)}), so they cannot be compared; use another baseline or integrated_gradients."
            )
        return found


def _chord(call: Call, x: torch.Tensor, x0: torch.Tensor, *, relative: bool = False) -> torch.Tensor:
    """Return call(x) with the slope between reference and input as its gradient.

    Where both nearly agree, the slope in their middle stands in: there the chord would be mostly rounding.
    """
    value, moved = call(x.detach()), (x.detach() - x0).nan_to_num()  # masked scores may be infinite in both runs
    small = moved.abs() < torch.finfo(x.dtype).eps ** (1 / 3) * (x0.abs() if relative else 1.0)
    with torch.enable_grad():
        middle = (x0 + moved / 2).requires_grad_()
        slope = torch.autograd.grad(call(middle).sum(), middle)[0]
    chord = (value - call(x0)) / torch.where(small, 1.0, moved)
    return through(value, x, torch.where(small, slope, chord))


def _times(call: Call, a: tuple[torch.Tensor, torch.Tensor], b: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    """Return call(a, b), each a pair of input and reference; the gradient to one is the mean of the other."""
    mean_a, mean_b = ((now.detach() + then) / 2 for now, then in (a, b))
    return through(call(a[0].detach(), b[0].detach()), call(a[0], mean_b) + call(mean_a, b[0]))


def _divided(call: Call, x: tuple[torch.Tensor, torch.Tensor], inverse: torch.Tensor) -> torch.Tensor:
    """Return call(x, inverse), x a pair of input and reference, whose difference counts at the input's inverse."""
    value = call(x[0].detach(), inverse.detach())
    return through(value, call(x[0], inverse.detach()) + call(x[1], inverse))


def _exponentials(
    x: torch.Tensor, x0: torch.Tensor, dim: int
) -> tuple[tuple[torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor], torch.Tensor]:
    """Return exponentials and their sums, each for input and reference, and the shift that keeps them in range."""
    shift = torch.maximum(x.detach().amax(dim, keepdim=True), x0.amax(dim, keepdim=True))
    e, e0 = _chord(torch.exp, x - shift, x0 - shift), (x0 - shift).exp()
    return (e, e0), (e.sum(dim, keepdim=True), e0.sum(dim, keepdim=True)), shift
