"""Counted work: the rows that go through weight matrices, forward and backward, whoever sends them.

Every linear layer of the process is watched while counting, so both sides are counted by the same hooks, also where
one of them wraps, splits or bypasses modules.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.modules import module as global_hooks

from bench.models import Shape


@dataclass
class Work:
    """What was computed.

    A token-layer is one position sent through all matrices of one block; parts of a block count as their share of its
    weights. A backward token-layer is a position of the gradient sent back through them; `weight_layers` are the
    products for gradients of the weights themselves, which nothing here needs. A logit row is one position sent
    through the unembedding.
    """

    token_layers: float = 0.0
    backward_layers: float = 0.0
    weight_layers: float = 0.0
    logit_rows: float = 0.0
    backward_logit_rows: float = 0.0

    def multiply_adds(self, shape: Shape) -> float:
        """Return the multiply-adds of these rows in a model of this shape; attention's own products are left out."""
        block = shape.units_per_token_layer * shape.width**2
        layers = self.token_layers + self.backward_layers + self.weight_layers
        return layers * block + (self.logit_rows + self.backward_logit_rows) * shape.width * shape.words

    def scaled(self, by: float) -> Work:
        """Return this work `by` times."""
        return Work(**{name: value * by for name, value in vars(self).items()})


@contextmanager
def counted(shape: Shape) -> Iterator[Work]:
    """Count what every linear layer is given in this context."""
    count = _Count(shape)
    handle = global_hooks.register_module_forward_hook(count.forward)
    try:
        yield count.work
    finally:
        handle.remove()
        for hook in count.handles:
            hook.remove()


class _Count:
    """The hooks that count: on every module's output, on the gradients of outputs and on those of weights."""

    def __init__(self, shape: Shape) -> None:
        self.shape, self.work = shape, Work()
        self.block = shape.units_per_token_layer * shape.width**2
        self.handles: list[Any] = []
        self.rows: dict[torch.Tensor, float] = {}

    def add(self, kind: str, weight: torch.Tensor, rows: float) -> None:
        """Add rows through one matrix; products for the gradient of the unembedding are backward rows, too."""
        if self.shape.words in weight.shape:
            name = "logit_rows" if kind == "token_layers" else "backward_logit_rows"
            setattr(self.work, name, getattr(self.work, name) + rows)
        else:
            setattr(self.work, kind, getattr(self.work, kind) + rows * weight.numel() / self.block)

    def forward(self, module: torch.nn.Module, args: Any, output: Any) -> None:
        """Count a linear layer's rows, and watch what comes back."""
        from transformers.pytorch_utils import Conv1D

        if not isinstance(module, (torch.nn.Linear, Conv1D)) or hasattr(module.forward, "multiplied_ahead"):
            return  # the products of what was multiplied ahead were counted there
        given, weight = args[0], module.weight
        if output is given:
            return  # a layer that was bypassed hands its input on
        inputs = weight.shape[1] if isinstance(module, torch.nn.Linear) else weight.shape[0]
        rows = _elements(given) / inputs * (2 if _has_tangent(given) else 1)
        self.add("token_layers", weight, rows)
        if weight.requires_grad and torch.is_grad_enabled():
            if weight not in self.rows and self.shape.words not in weight.shape:  # a tied one is an embedding, too
                # Fires only where this gradient is really computed, which `autograd.grad` to other inputs does not do.
                self.handles.append(
                    weight.register_hook(lambda _: self.add("weight_layers", weight, self.rows[weight]))
                )
            self.rows[weight] = rows
        if output.requires_grad:
            outputs, wanted = weight.numel() // inputs, given.requires_grad
            output.register_hook(
                lambda gradient: self.add("backward_layers", weight, _elements(gradient) / outputs) if wanted else None
            )


def _elements(tensor: torch.Tensor) -> int:
    """Return the number of elements, all levels of `vmap` and of batched gradients included."""
    functorch = torch._C._functorch
    while functorch.is_functorch_wrapped_tensor(tensor):
        tensor = functorch.get_unwrapped(tensor)
    if functorch.is_legacy_batchedtensor(tensor):  # inside `autograd.grad(is_grads_batched=True)`
        level = torch._C._vmapmode_increment_nesting() - 1
        torch._C._vmapmode_decrement_nesting()
        tensor = torch._remove_batch_dim(tensor, level, 1, 0)
    return tensor.numel()


def _has_tangent(tensor: torch.Tensor) -> bool:
    """Return whether forward-mode differentiation sends a second row along with every row."""
    level = torch.autograd.forward_ad._current_level
    return level >= 0 and torch.autograd.forward_ad.unpack_dual(tensor, level=level).tangent is not None
