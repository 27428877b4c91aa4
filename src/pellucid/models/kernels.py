"""Faster kernels for frozen models: packed products, where the default is far from its limit, and whole activations.

oneDNN multiplies by a weight that was packed once. Whether that pays depends on processor and shape, so it is measured
once per shape; at few rows it is slower and never taken. The operators are private to torch: where they are missing,
everything takes the plain way. Activations that a configuration writes as a chain of operations are one kernel.
"""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import torch
from torch.autograd import forward_ad
from torch.autograd.function import once_differentiable
from torch.nn import functional
from transformers.activations import FastGELUActivation, NewGELUActivation
from transformers.pytorch_utils import Conv1D

from pellucid.models import batched_gradients, freed_memory
from pellucid.models.hooks import acting

if TYPE_CHECKING:
    from pellucid.models.subject import Subject

LEAST_ROWS = 64  # below this a packed product was measured to be slower, at one row a hundred times
LEAST_GAIN = 1.08
LEAST_WEIGHTS = 5_000_000  # smaller models spend their time elsewhere
LEAST_TOKENS = 2048  # below this nothing is measured
ROWS_MEASURED = 256
MOST_REAL = 0.95  # a gradient with more places than these that are not zero is multiplied whole
MOST_MEASURED = 4096  # outputs; a wider product, as the unembedding, is judged by so many and sees fewer rows

_layers: ContextVar[tuple[Any, dict[torch.nn.Module, Callable[..., Any]]] | None] = ContextVar(
    "pellucid_kernels", default=None
)
_off: ContextVar[bool] = ContextVar("pellucid_kernels_off", default=False)
_first_order: ContextVar[bool] = ContextVar("pellucid_kernels_first_order", default=False)


@contextmanager
def plain() -> Iterator[None]:
    """Take the plain product everywhere in this context."""
    token = _off.set(True)
    try:
        yield
    finally:
        _off.reset(token)


@contextmanager
def first_order() -> Iterator[None]:
    """Promise that gradients in this context are taken once only, so that fast products may be differentiated."""
    token = _first_order.set(True)
    try:
        yield
    finally:
        _first_order.reset(token)


@contextmanager
def session(subject: Subject, tokens: int) -> Iterator[None]:
    """Pack the weights for one engine call that runs about `tokens` tokens, where that pays, and forget them after.

    Memory freed between batches stays in the process meanwhile.

    Nothing is kept between calls, so a weight that changes in whatever way is never multiplied by its old value.
    """
    wanted = tokens >= LEAST_TOKENS and not _off.get() and subject.dtype == "float32"
    packed = _packed(subject.model, tokens) if wanted and _available() else {}
    token = _layers.set((subject.model, packed | _whole(subject.model)) if wanted else None)
    try:
        with freed_memory.kept() if tokens >= LEAST_TOKENS and subject.device == "cpu" else nullcontext():
            yield
    finally:
        _layers.reset(token)


@contextmanager
def fast(model: torch.nn.Module) -> Iterator[None]:
    """Let the layers that the session found take the faster kernels, and leave no trace on them.

    Equal to the model's own up to float32 rounding.
    """
    held = None if _off.get() else _layers.get()
    with acting(held[1] if held is not None and held[0] is model else {}):
        yield


def packed_weights() -> list[torch.Tensor]:
    """Return the weights that the session of this context has packed."""
    held = _layers.get()
    return [module.weight for module, work in held[1].items() if isinstance(work, _Layer)] if held is not None else []


def packed_late() -> dict[torch.Tensor, float]:
    """Return those of the session's weights that are packed when so many rows have come, and these rows."""
    held = _layers.get()
    works = held[1].items() if held is not None else []
    return {module.weight: work.wait for module, work in works if isinstance(work, _Layer) and work.wait > 0}


def _whole(model: torch.nn.Module) -> dict[torch.nn.Module, Callable[..., Any]]:
    """Return the activations that are a chain of eight operations forward and more backward, as one kernel each."""
    chains = (NewGELUActivation, FastGELUActivation)
    whole = functools.partial(functional.gelu, approximate="tanh")
    return {m: whole for m in model.modules() if type(m) in chains and "forward" not in vars(m)}


def _packed(model: torch.nn.Module, tokens: int) -> dict[torch.nn.Module, Callable[..., Any]]:
    layers = [m for m in model.modules() if type(m) in (torch.nn.Linear, Conv1D)]
    if sum(m.weight.numel() for m in layers) < LEAST_WEIGHTS:
        return {}
    found: dict[torch.nn.Module, Callable[..., Any]] = {}
    for module in layers:
        weight = module.weight
        if weight.dtype != torch.float32 or weight.device.type != "cpu" or "forward" in vars(module):
            continue
        rows = weight.detach() if isinstance(module, torch.nn.Linear) else weight.detach().t()
        least = rows_to_pay(min(len(rows), MOST_MEASURED), rows.shape[1])
        if least <= tokens:
            try:
                found[module] = _Layer(module, rows, least if len(rows) > MOST_MEASURED else 0.0)
            except (MemoryError, RuntimeError):  # no room for packed weights
                return {}
    return found


class _Layer:
    """One layer's work with packed weights, by itself where the plain way is better or needed.

    `wait` rows go the plain way before the weight is packed, where nobody knows how many will come.
    """

    def __init__(self, module: torch.nn.Module, weight: torch.Tensor, wait: float = 0.0) -> None:
        self.own, self.module = module.forward, module
        self.weight, self.wait = weight, wait
        self.forward = None if wait else _pack(weight)
        self.backward: torch.Tensor | None = None

    def __call__(self, value: torch.Tensor) -> torch.Tensor:
        rows = value.numel() // max(1, value.shape[-1])
        self.wait -= rows
        if rows < LEAST_ROWS or self.wait > 0 or value.dtype != torch.float32:
            return self.own(value)
        learns = torch.is_grad_enabled() and any(p.requires_grad for p in self.module.parameters())
        differentiated = torch.is_grad_enabled() and value.requires_grad
        if learns or (differentiated and not _first_order.get()) or forward_ad._current_level >= 0:
            return self.own(value)
        bias = self.module.bias
        if not differentiated:
            return self.product(value, bias)
        return _Product.apply(value, self, bias)  # type: ignore[no-any-return]

    def product(self, value: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        """Multiply by the packed weight, or the plain way where oneDNN cannot.

        Where memory ran out once, oneDNN may refuse every new kernel for the rest of the process.
        """
        try:
            if self.forward is None:
                self.forward = _pack(self.weight)
            return _product(value, self.forward, bias)
        except RuntimeError:
            return functional.linear(value, self.weight, bias)

    def transposed_product(self, gradient: torch.Tensor) -> torch.Tensor:
        """Multiply a gradient by the transposed weight, packed when a gradient first needs it.

        Gradients that travel together are multiplied together, and what stands behind a target, zeros, not at all.
        """
        level = batched_gradients.level(gradient)
        if level is not None:
            found = self.transposed_product(batched_gradients.opened(gradient, level))
            return batched_gradients.closed(found, level)
        real = _not_zero(gradient) if batched_gradients.readable(gradient) else None
        if real is None:
            return self._transposed(gradient)
        found = gradient.new_zeros(*gradient.shape[:-1], self.weight.shape[1])
        found[real] = self._transposed(gradient[real])
        return found

    def _transposed(self, gradient: torch.Tensor) -> torch.Tensor:
        if gradient.numel() < LEAST_ROWS * gradient.shape[-1]:
            return functional.linear(gradient, self.weight.t())
        try:
            if self.backward is None:
                self.backward = _pack(self.weight.t())
            return _product(gradient.contiguous(), self.backward, None)
        except RuntimeError:
            return functional.linear(gradient, self.weight.t())


class _Product(torch.autograd.Function):
    """A product whose backward is the same product with the transposed weight; the weight has no gradient."""

    @staticmethod
    def forward(ctx: Any, value: torch.Tensor, layer: _Layer, bias: torch.Tensor | None) -> torch.Tensor:
        ctx.layer = layer
        return layer.product(value, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        return ctx.layer.transposed_product(gradient), None, None


def _not_zero(gradient: torch.Tensor) -> torch.Tensor | None:
    """Return which places [...] of a gradient [..., positions, outputs] are not zero, or None where nearly all are.

    Behind its target a gradient is zero, and in the last block everywhere else, so that its first and last positions
    tell whether to look at all of them.
    """
    if gradient.ndim < 3 or all(bool(gradient[..., place, :].any(-1).all()) for place in (0, -1)):
        return None
    real = (gradient.amax(-1) != 0) | (gradient.amin(-1) != 0)  # a fraction of what `any` takes
    return real if int(real.sum()) < MOST_REAL * real.numel() else None


def _pack(weight: torch.Tensor) -> torch.Tensor:
    return torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), ROWS_MEASURED)  # type: ignore[no-any-return]


def _product(value: torch.Tensor, packed: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    return torch.ops.mkldnn._linear_pointwise(value, packed, bias, "none", [], "")  # type: ignore[no-any-return]


@functools.cache
def _available() -> bool:
    """Return whether torch has the operators and they multiply rightly."""
    try:
        weight, value = torch.randn(24, 16), torch.randn(8, 16)
        found = _product(value, _pack(weight), None)
    except (AttributeError, RuntimeError, NotImplementedError):
        return False
    return torch.allclose(found, functional.linear(value, weight), atol=1e-4)


@functools.cache
def rows_to_pay(outputs: int, inputs: int) -> float:
    """Return from how many rows on a packed product of this shape saves more time here than packing takes.

    Infinity where it is not faster, or less accurate.
    """
    try:
        weight, value = torch.randn(outputs, inputs), torch.randn(ROWS_MEASURED, inputs)
        packed = _pack(weight)
        close = torch.allclose(_product(value, packed, None), functional.linear(value, weight), atol=1e-3, rtol=1e-4)
        default, fast = (
            _seconds(lambda: functional.linear(value, weight)),
            _seconds(lambda: _product(value, packed, None)),
        )
        if not close or default < LEAST_GAIN * fast:
            return math.inf
        return ROWS_MEASURED * _seconds(lambda: _pack(weight)) / (default - fast)
    except (MemoryError, RuntimeError):  # no room for packed weights
        return math.inf


def _seconds(work: Callable[[], Any]) -> float:
    times = []
    for _ in range(6):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times[1:])
