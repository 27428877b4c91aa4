"""Gradients that travel backward together, for functions whose backward torch would run once for each of them.

Under `torch.func.vmap` a custom function's backward is handed one tensor that holds all gradients. What opens it is
private to torch; where that is missing, looking into such a tensor fails and callers go one by one.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.autograd.function import once_differentiable
from torch.nn import functional
from torch.overrides import TorchFunctionMode

OPTIONS = {"attn_mask", "dropout_p", "is_causal", "scale"}


def level(gradient: torch.Tensor) -> int | None:
    """Return the level at which a tensor holds several gradients, None where it is a plain one."""
    functorch = torch._C._functorch
    return functorch.maybe_get_level(gradient) if functorch.is_batchedtensor(gradient) else None


def readable(gradient: torch.Tensor) -> bool:
    """Return whether a tensor's numbers can be looked at: not inside torch's older way of batching."""
    return not torch._C._functorch.is_legacy_batchedtensor(gradient)


def opened(gradient: torch.Tensor, at: int) -> torch.Tensor:
    """Return all gradients that a tensor holds: [gradients, ...]."""
    value, where = torch._C._functorch._unwrap_batched(gradient, at)
    return value.movedim(where, 0)


def closed(gradients: torch.Tensor, at: int) -> torch.Tensor:
    """Return gradients [gradients, ...] as the one tensor that torch goes on with."""
    return torch._C._functorch._add_batch_dim(gradients, 0, at)


class AttentionTogether(TorchFunctionMode):
    """Let plain attention on a processor send several gradients back in one call; torch's own sends one at a time."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Take over the calls of `scaled_dot_product_attention` that have no mask of their own; let all others pass."""
        kwargs = kwargs or {}
        if func is functional.scaled_dot_product_attention and len(args) == 3 and _is_plain(*args, **kwargs):
            return _Attention.apply(*args, kwargs.get("is_causal", False), kwargs.get("scale"))
        return func(*args, **kwargs)


def _is_plain(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, **options: Any) -> bool:
    return (
        set(options) <= OPTIONS
        and options.get("attn_mask") is None
        and not options.get("dropout_p")
        and query.device.type == "cpu"
        and query.requires_grad
        and query.ndim == 4
        and query.shape[1] == key.shape[1]
        and query.shape[-1] == value.shape[-1]
    )


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, causal: bool, scale: float | None
    ) -> torch.Tensor:
        run = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
        found, sums = run(query, key, value, 0.0, causal, attn_mask=None, scale=scale)
        ctx.save_for_backward(query, key, value, found, sums)
        ctx.options = causal, scale
        return found  # type: ignore[no-any-return]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        causal, scale = ctx.options
        at = level(gradient)
        many = gradient[None] if at is None else opened(gradient, at)
        count = len(many)
        kept = [part.expand(count, *part.shape).flatten(0, 1) for part in ctx.saved_tensors]
        run = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward
        found = run(many.flatten(0, 1), *kept, 0.0, causal, attn_mask=None, scale=scale)
        split = [part.unflatten(0, (count, -1)) for part in found]
        return *(part[0] if at is None else closed(part, at) for part in split), None, None
