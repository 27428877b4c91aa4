"""The arithmetic of a model, seen while it runs: every step that is not linear is handed to a propagation.

Relevance rules, DeepLIFT and contextual decomposition differ only in what they do with a product, a softmax, a norm, an
activation and a bias. `intercepted` finds these steps on any architecture and gives them to a `Propagation`; all other
steps are linear and run as they are. Nothing is patched: leaving the context undoes it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import torch
from torch.overrides import TorchFunctionMode

from pellucid.engine.backward import frozen
from pellucid.models.hooks import Hook, hooked
from pellucid.models.layout import block_of, depth

if TYPE_CHECKING:
    from pellucid.models.subject import Subject

Call = Callable[..., torch.Tensor]
ACTIVATIONS = frozenset(
    {"relu", "gelu", "silu", "tanh", "sigmoid", "elu", "leaky_relu", "softplus", "mish", "hardswish"}
)
ROOTS = frozenset({"rsqrt", "sqrt", "reciprocal"})
OTHERS = frozenset({"pow", "square", "exp", "log"})


@runtime_checkable
class Propagation(Protocol):
    """What a method makes of each step; `stage` counts blocks: k inside the k-th, k + 0.5 behind it, 0 before all."""

    stage: float

    def depends(self, value: Any) -> bool:
        """Return whether a value depends on what is explained."""
        ...

    def linear(self, call: Call, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        """Return x times weight [out, in] plus bias; `call` computes it from (x, weight, bias)."""
        ...

    def product(self, call: Call, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        """Return a product (of entries or matrices) of two values that both depend."""
        ...

    def scaled(self, call: Call, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        """Return a product of matrices of which one is constant."""
        ...

    def add(self, call: Call, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        """Return the sum (or difference) of two values, at least one of which depends."""
        ...

    def elementwise(self, call: Call, x: torch.Tensor, name: str, value: torch.Tensor | None = None) -> torch.Tensor:
        """Return a function of single entries; `value` is its result where that is known."""
        ...

    def softmax(self, call: Call, x: torch.Tensor, dim: int) -> torch.Tensor:
        """Return the softmax."""
        ...

    def logsumexp(self, call: Call, x: torch.Tensor, dim: int) -> torch.Tensor:
        """Return the logarithm of the sum of exponentials."""
        ...

    def layer_norm(
        self, x: torch.Tensor, weight: torch.Tensor | None, bias: torch.Tensor | None, eps: float
    ) -> torch.Tensor:
        """Return the layer norm over the last axis."""
        ...

    def attention(
        self, call: Call, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor | None
    ) -> torch.Tensor | None:
        """Return fused attention, `call` of (query, key, value, mask), or None to have it taken apart into steps."""
        ...


class _Watch(TorchFunctionMode):
    """Sends each torch call to the step of the propagation that it is."""

    def __init__(self, propagation: Propagation) -> None:
        super().__init__()
        self.propagation = propagation
        self.paused = False
        steps: dict[Callable[..., Any], tuple[str, ...]] = {
            self._linear: ("linear",), self._addmm: ("addmm",), self._matmul: ("matmul", "bmm", "mm", "__matmul__"),
            self._baddbmm: ("baddbmm",), self._mul: ("mul", "multiply", "__mul__", "__rmul__"),
            self._div: ("div", "true_divide", "__truediv__"), self._attention: ("scaled_dot_product_attention",),
            self._add: ("add", "add_", "sub", "__add__", "__radd__", "__iadd__", "__sub__"),
            self._softmax: ("softmax",), self._log_softmax: ("log_softmax",), self._logsumexp: ("logsumexp",),
            self._layer_norm: ("layer_norm",), self._elementwise: (*ACTIVATIONS, *ROOTS, *OTHERS),
        }  # fmt: skip
        self.steps = {name: step for step, names in steps.items() for name in names}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Hand steps on that depend on what is explained; most calls, such as for a shape, are none."""
        kwargs = kwargs or {}
        step = None if self.paused else self.steps.get(getattr(func, "__name__", ""))
        if step is None or not any(self.propagation.depends(a) for a in (*args, *kwargs.values())):
            return func(*args, **kwargs)
        if "input" in kwargs:
            kwargs = dict(kwargs)
            args = (kwargs.pop("input"), *args)
        return step(func, *args, **kwargs)

    def _linear(self, func: Call, x: Any, weight: Any, bias: Any = None) -> torch.Tensor:
        return self.propagation.linear(func, x, weight, bias)

    def _addmm(self, func: Call, bias: Any, x: Any, weight: Any, **rest: Any) -> torch.Tensor:
        if rest or not self.propagation.depends(x) or self.propagation.depends(weight):
            return func(bias, x, weight, **rest)
        return self.propagation.linear(torch.nn.functional.linear, x, weight.T, bias)

    def _matmul(self, func: Call, a: Any, b: Any) -> torch.Tensor:
        both = self.propagation.depends(a) and self.propagation.depends(b)
        return (self.propagation.product if both else self.propagation.scaled)(func, a, b)

    def _baddbmm(
        self, func: Call, start: Any, batch1: Any, batch2: Any, *, beta: float = 1, alpha: float = 1
    ) -> torch.Tensor:
        return self._add(torch.add, start * beta, self._matmul(torch.bmm, batch1, batch2) * alpha)

    def _mul(self, func: Call, a: Any, b: Any) -> torch.Tensor:
        if self.propagation.depends(a) and self.propagation.depends(b):
            return self.propagation.product(torch.mul, a, b)
        return func(a, b)

    def _div(self, func: Call, a: Any, b: Any, **rest: Any) -> torch.Tensor:
        if not self.propagation.depends(b) or rest:
            return func(a, b, **rest)
        return self._mul(torch.mul, a, self.propagation.elementwise(torch.reciprocal, b, "reciprocal"))

    def _add(self, func: Call, a: Any, b: Any, **rest: Any) -> torch.Tensor:
        if rest or not (isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor)):
            return func(a, b, **rest)
        return self.propagation.add(torch.sub if "sub" in func.__name__ else torch.add, a, b)

    def _softmax(self, func: Call, x: Any, dim: int = -1, **rest: Any) -> torch.Tensor:
        dtype = rest.pop("dtype", None)
        rest.pop("_stacklevel", None)
        return self.propagation.softmax(torch.softmax, x if dtype is None else x.to(dtype), dim)

    def _log_softmax(self, func: Call, x: Any, dim: int = -1, **rest: Any) -> torch.Tensor:
        total = self.propagation.logsumexp(torch.logsumexp, x, dim).unsqueeze(dim)
        return self.propagation.add(torch.sub, x, total)

    def _logsumexp(self, func: Call, x: Any, dim: int = -1) -> torch.Tensor:
        return self.propagation.logsumexp(torch.logsumexp, x, dim)

    def _layer_norm(
        self, func: Call, x: Any, shape: Any, weight: Any = None, bias: Any = None, eps: float = 1e-5, **rest: Any
    ) -> torch.Tensor:
        if len(tuple(shape)) != 1:
            return func(x, shape, weight, bias, eps, **rest)
        return self.propagation.layer_norm(x, weight, bias, eps)

    def _elementwise(self, func: Call, x: Any, *rest: Any, **more: Any) -> torch.Tensor:
        name = func.__name__
        if name == "pow" and not (rest and isinstance(rest[0], int | float)):
            return func(x, *rest, **more)
        name = "rsqrt" if name == "pow" and rest[0] < 0 else name
        return self.propagation.elementwise(lambda v: func(v, *rest, **more), x, name)

    def _attention(
        self, func: Call, query: Any, key: Any, value: Any, attn_mask: Any = None, dropout_p: float = 0.0,
        is_causal: bool = False, scale: float | None = None, enable_gqa: bool = False,
    ) -> torch.Tensor:  # fmt: skip
        def fused(q: Any, k: Any, v: Any, mask: Any) -> torch.Tensor:
            return func(q, k, v, mask, dropout_p, is_causal, scale=scale, enable_gqa=enable_gqa)

        whole = self.propagation.attention(fused, query, key, value, attn_mask)
        if whole is not None:
            return whole
        if key.shape[1] != query.shape[1]:
            repeat = query.shape[1] // key.shape[1]
            key, value = key.repeat_interleave(repeat, 1), value.repeat_interleave(repeat, 1)
        query = query * (query.shape[-1] ** -0.5 if scale is None else scale)
        scores = self._matmul(torch.matmul, query, key.transpose(-2, -1))
        lowest = torch.finfo(scores.dtype).min
        if is_causal:
            allowed = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
            scores.masked_fill_(~allowed, lowest)
        if attn_mask is not None and attn_mask.dtype == torch.bool:
            scores.masked_fill_(~attn_mask, lowest)
        elif attn_mask is not None:
            scores = self.propagation.add(torch.add, scores, attn_mask) if self.propagation.depends(scores) else (
                scores + attn_mask
            )  # fmt: skip
        if self.propagation.depends(scores):
            pattern = self.propagation.softmax(torch.softmax, scores, -1)
        else:
            pattern = scores.softmax(-1)
        if not self.propagation.depends(pattern) and not self.propagation.depends(value):
            return pattern @ value
        return self._matmul(torch.matmul, pattern, value)


@contextmanager
def watched(propagation: Propagation, model: torch.nn.Module, blocks: Sequence[torch.nn.Module] = ()) -> Iterator[None]:
    """Hand the steps of any torch module to a propagation; its activation modules count as one step each.

    Weights are constants in this context.

    Args:
        propagation: what is done with each step.
        model: the module that is run inside the context.
        blocks: modules whose calls, in order, are the stages.
    """
    watch = _Watch(propagation)
    hooks = [hook for module in _activations(model) for hook in _as_one_step(watch, module)]

    def enter(args: Any, kwargs: Any) -> Any:
        propagation.stage = int(propagation.stage) + 1
        return args, kwargs

    def leave(output: Any) -> Any:
        propagation.stage += 0.5
        return output

    for block in dict.fromkeys(blocks):
        hooks += [Hook(block, "input", enter), Hook(block, "output", leave)]
    propagation.stage = 0
    with frozen(model), hooked(hooks), watch:
        yield


@contextmanager
def intercepted(subject: Subject, propagation: Propagation) -> Iterator[None]:
    """Hand the steps of a subject's model to a propagation; other threads wait until the context is left."""
    layout, model = subject.need_layout(), subject.model
    blocks = [
        block_of(model, layout.stacks[name], layer)[0]
        for name in layout.stacks
        for layer in range(depth(model, layout, name))
    ]
    with subject.lock, watched(propagation, model, blocks):
        yield


def _activations(model: torch.nn.Module) -> list[torch.nn.Module]:
    found = []
    for module in model.modules():
        home, name = type(module).__module__, type(module).__name__.lower()
        known = home in ("transformers.activations", "torch.nn.modules.activation") or "gelu" in name
        if known and "softmax" not in name and not list(module.parameters()) and not list(module.children()):
            found.append(module)
    return found


def _as_one_step(watch: _Watch, module: torch.nn.Module) -> list[Hook]:
    kept: list[torch.Tensor] = []

    def enter(args: Any, kwargs: Any) -> Any:
        if watch.paused or not watch.propagation.depends(args[0]):
            return args, kwargs
        kept.append(args[0])
        watch.paused = True
        return (args[0].detach(), *args[1:]), kwargs

    def leave(output: Any) -> Any:
        if not kept:
            return output
        try:
            name = type(module).__name__.lower().removesuffix("activation")
            return watch.propagation.elementwise(module.forward, kept.pop(), name, output)
        finally:
            watch.paused = False

    return [Hook(module, "input", enter), Hook(module, "output", leave)]
