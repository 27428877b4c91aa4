"""A norm as the linear function that it is at its own divisor, for vectors that add up to its input."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from pellucid.core.errors import ModelError


@dataclass(frozen=True, eq=False)
class FrozenNorm:
    """The map norm(x) = gain * (x - mean(x) where `centred`) + bias, with the divisor of x inside `gain`.

    `gain` is [positions, dimension], `bias` [dimension].
    """

    module: torch.nn.Module
    gain: torch.Tensor
    bias: torch.Tensor
    centred: bool

    @torch.no_grad()
    def anew(self, inputs: torch.Tensor) -> torch.Tensor:
        """Return the norm of other inputs [vectors, dimension], with their own divisors."""
        answer: torch.Tensor = self.module(inputs[None].to(_dtype(self.module, inputs)))[0]
        return answer.to(inputs)

    def __call__(self, vectors: torch.Tensor) -> torch.Tensor:
        """Return the linear part for vectors [positions, ..., dimension]; of the input itself it is norm(x) - bias."""
        gain = self.gain.view(len(self.gain), *[1] * (vectors.ndim - 2), -1)
        return (vectors - vectors.mean(-1, keepdim=True)).mul_(gain) if self.centred else vectors * gain

    def back(self, directions: torch.Tensor) -> torch.Tensor:
        """Return directions [..., positions, dimension] at the output as directions at the input: the transpose."""
        moved = directions * self.gain
        return moved - moved.mean(-1, keepdim=True) if self.centred else moved

    def rows(self, rows: slice) -> FrozenNorm:
        """Return the norm at some of the positions."""
        return FrozenNorm(self.module, self.gain[rows], self.bias, self.centred)


@torch.no_grad()
def frozen_norm(module: torch.nn.Module, inputs: torch.Tensor) -> FrozenNorm:
    """Return a norm module as a linear map at its inputs [positions, dimension]. Exact, up to rounding.

    The module is asked, not read: its value at zero is the bias, its value at a vector of entries 1 and -1 the weight
    up to a factor, and its value at the inputs gives the factors. Layer norms and root-mean-square norms of any family
    are found like this.

    Raises:
        ModelError: the module is no such norm.
    """
    size = inputs.shape[-1]
    signs = 1 - 2 * (torch.arange(size, device=inputs.device) % 2).to(inputs)
    probes = torch.stack([torch.zeros_like(signs), signs])
    dtype = _dtype(module, inputs)
    answers: torch.Tensor = module(torch.cat([probes, inputs])[None].to(dtype))[0].to(inputs)
    bias, at_signs, outputs = answers[0], answers[1] - answers[0], answers[2:] - answers[0]
    found: list[tuple[float, FrozenNorm]] = []
    for centred in (True, False):
        centre = (lambda v: v - v.mean(-1, keepdim=True)) if centred else (lambda v: v)
        weight = at_signs / centre(signs)
        shape = weight * centre(inputs)
        factor = (outputs * shape).sum(-1, keepdim=True) / (shape * shape).sum(-1, keepdim=True).clamp(min=1e-30)
        gap = float((outputs - factor * shape).abs().max() / outputs.abs().max().clamp(min=1e-30))
        found.append((gap, FrozenNorm(module, factor * weight, bias, centred)))
    gap, norm = min(found, key=lambda pair: pair[0])
    if not gap <= 2000 * max(torch.finfo(dtype).eps, 1e-9):
        raise ModelError(
            f"The vectors of a block need its norm, but {type(module).__name__} is no layer norm or root-mean-square "
            f"norm (it differs from one by {gap:.2g}); use a method that works on gradients, such as lrp."
        )
    return norm


def _dtype(module: torch.nn.Module, inputs: torch.Tensor) -> torch.dtype:
    return next((p.dtype for p in module.parameters() if p.is_floating_point()), inputs.dtype)
