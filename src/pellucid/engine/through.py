"""A value with another tensor's gradient: the one tool that changes a backward pass and never a forward one."""

from __future__ import annotations

from typing import Any

import torch


class _Through(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: torch.Tensor, source: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(factor)
        return value.detach().clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        return None, gradients[0] * ctx.saved_tensors[0], None


def through(value: torch.Tensor, source: torch.Tensor, factor: torch.Tensor | float = 1.0) -> torch.Tensor:
    """Return `value`; its gradient goes to `source` (of the same shape), times `factor`. Exact."""
    factor = torch.as_tensor(factor, dtype=value.dtype, device=value.device)
    result: torch.Tensor = _Through.apply(value, source, factor)  # type: ignore[no-untyped-call]
    return result


class _Halved(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: torch.Tensor) -> torch.Tensor:
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        return gradients[0] / 2


def halved(value: torch.Tensor) -> torch.Tensor:
    """Return the value, without a copy, with half its gradient; not to be changed in place."""
    result: torch.Tensor = _Halved.apply(value)  # type: ignore[no-untyped-call]
    return result
