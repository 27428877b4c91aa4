"""A value with another tensor's gradient: the one tool that changes a backward pass and never a forward one."""

from __future__ import annotations

from typing import Any

import torch


class _Through(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, held: list[torch.Tensor], source: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(factor)
        return held[0]  # a tensor that autograd does not know as an input is not copied

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        return None, gradients[0] * ctx.saved_tensors[0], None


def through(
    value: torch.Tensor, source: torch.Tensor, factor: torch.Tensor | float = 1.0, *, own: bool = False
) -> torch.Tensor:
    """Return `value`; its gradient goes to `source` (of the same shape), times `factor`. Exact.

    With `own` the value, which must be a tensor without a graph that nobody else holds, is not copied.
    """
    factor = torch.as_tensor(factor, dtype=value.dtype, device=value.device)
    held = value if own else value.detach().clone()
    result: torch.Tensor = _Through.apply([held], source, factor)  # type: ignore[no-untyped-call]
    return result


class _Scaled(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: torch.Tensor, factor: float) -> torch.Tensor:
        ctx.factor = factor
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        return gradients[0] * ctx.factor, None


def scaled(value: torch.Tensor, factor: float) -> torch.Tensor:
    """Return the value, without a copy, with its gradient times a factor; not to be changed in place."""
    result: torch.Tensor = _Scaled.apply(value, factor)  # type: ignore[no-untyped-call]
    return result
