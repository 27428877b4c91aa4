"""Attention opened up: scores, pattern and rotated queries and keys, in the layers asked for only.

Most families call `ALL_ATTENTION_FUNCTIONS[name]`: for the length of a run the model is switched to an implementation
registered here, which computes tapped layers step by step and hands every other layer to the model's own
implementation. Families that do not are reached by watching the calls of `softmax` and
`scaled_dot_product_attention` while a tapped attention module runs.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import eager_mask

from pellucid.models.hooks import Hook, hooked

Visit = Callable[[str, torch.Tensor], torch.Tensor]
Change = Callable[[torch.Tensor], torch.Tensor]
Whole = Callable[..., torch.Tensor]
NAME = "pellucid"


@dataclass
class _Switch:
    original: str = "eager"
    visit: Visit | None = None
    whole: Whole | None = None


_switches: dict[int, _Switch] = {}


def attend(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    softcap: float | None = None,
    position_bias: torch.Tensor | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Compute attention as every family does, letting a visitor read and replace each step.

    Shapes: query [batch, heads, positions, width], key and value with key/value heads; returns [batch, positions,
    heads, width].
    """
    switch = _switches.get(id(module))
    if switch is not None and switch.whole is not None:
        sinks = kwargs.get("s_aux", getattr(module, "sinks", None))
        return switch.whole(query, key, value, scaling, softcap, sinks), None
    if switch is None or switch.visit is None:
        return _original(module, switch)(
            module,
            query,
            key,
            value,
            attention_mask,
            scaling=scaling,
            **_given(softcap=softcap, position_bias=position_bias),
            **kwargs,
        )
    visit = switch.visit
    query = visit("q_rot", query.transpose(1, 2)).transpose(1, 2)
    key = visit("k_rot", key.transpose(1, 2)).transpose(1, 2)
    repeat = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(repeat, 1), value.repeat_interleave(repeat, 1)
    scores = query @ key.transpose(2, 3) * (query.shape[-1] ** -0.5 if scaling is None else scaling)
    if softcap is not None:
        scores = torch.tanh(scores / softcap) * softcap
    if position_bias is not None:
        scores = scores + position_bias
    if attention_mask is not None:
        scores = scores + attention_mask[:, :, :, : key.shape[-2]]
    scores = visit("scores", scores)
    sinks = kwargs.get("s_aux", getattr(module, "sinks", None))
    pattern = _softmax(scores, sinks).to(value.dtype)
    pattern = visit("pattern", pattern)
    return (pattern @ value).transpose(1, 2).contiguous(), pattern


def _softmax(scores: torch.Tensor, sinks: torch.Tensor | None) -> torch.Tensor:
    wide = scores if scores.dtype == torch.float64 else scores.float()
    if sinks is None:
        return wide.softmax(-1)
    extra = sinks.reshape(1, -1, 1, 1).expand(*wide.shape[:-1], 1).to(wide.dtype)
    return torch.cat([wide, extra], -1).softmax(-1)[..., :-1]


def _given(**options: Any) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}


def _original(module: torch.nn.Module, switch: _Switch | None) -> Callable[..., Any]:
    name = switch.original if switch is not None else "eager"
    eager: Any = getattr(sys.modules[type(module).__module__], "eager_attention_forward", None)
    return AttentionInterface().get_interface(name, eager)


AttentionInterface.register(NAME, attend)
AttentionMaskInterface.register(NAME, eager_mask)


@contextmanager
def opened(model: Any, modules: Mapping[torch.nn.Module, Visit], interface: bool) -> Iterator[None]:
    """Let visitors see the steps of the attention modules given; every flag of the model is as before afterwards."""
    if not modules:
        yield
    elif interface:
        with _switched(model, {id(module): _Switch(visit=visit) for module, visit in modules.items()}):
            yield
    else:
        with _watched(modules):
            yield


@contextmanager
def replaced(model: Any, modules: Mapping[torch.nn.Module, Whole]) -> Iterator[None]:
    """Let functions of (query, key, value, scaling, softcap, sinks) do the work of the attention modules given.

    Shapes as in `attend`; only for families that go through transformers' interface.
    """
    with _switched(model, {id(module): _Switch(whole=whole) for module, whole in modules.items()}):
        yield


@contextmanager
def _switched(model: Any, switches: Mapping[int, _Switch]) -> Iterator[None]:
    configs = {
        id(m.config): m.config for m in model.modules() if hasattr(getattr(m, "config", None), "_attn_implementation")
    }
    before = {key: config._attn_implementation for key, config in configs.items()}
    touched = []
    try:
        for module in model.modules():
            own = getattr(module, "config", None)
            if own is not None and id(own) in before:
                asked = switches.get(id(module), _Switch())
                _switches[id(module)] = replace(asked, original=before[id(own)] or "eager")
                touched.append(id(module))
        for config in configs.values():
            config._attn_implementation_internal = NAME
        yield
    finally:
        for key, config in configs.items():
            config._attn_implementation_internal = before[key]
        for key in touched:
            _switches.pop(key, None)


class _Watch(TorchFunctionMode):
    """While a tapped attention module runs, see its softmax and its fused attention."""

    def __init__(self) -> None:
        super().__init__()
        self.visit: Visit | None = None

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Replace the two calls that hide the pattern; let all others pass."""
        kwargs = kwargs or {}
        visit = self.visit
        if visit is None:
            return func(*args, **kwargs)
        if func is torch.nn.functional.scaled_dot_product_attention:
            return _explicit(visit, *args, **kwargs)
        if func in (torch.nn.functional.softmax, torch.softmax, torch.Tensor.softmax) and args[0].ndim >= 3:
            self.visit = None  # F.softmax calls Tensor.softmax, which must not be seen twice
            try:
                scores = args[0]
                shape = scores.shape
                scores = visit("scores", scores).reshape(shape)
                pattern = func(scores, *args[1:], **kwargs)
                return visit("pattern", pattern).reshape(shape)
            finally:
                self.visit = visit
        return func(*args, **kwargs)


def _explicit(
    visit: Visit, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, attn_mask: torch.Tensor | None = None,
    dropout_p: float = 0.0, is_causal: bool = False, scale: float | None = None, enable_gqa: bool = False,
) -> torch.Tensor:  # fmt: skip
    if key.shape[1] != query.shape[1]:
        repeat = query.shape[1] // key.shape[1]
        key, value = key.repeat_interleave(repeat, 1), value.repeat_interleave(repeat, 1)
    scores = query @ key.transpose(-2, -1) * (query.shape[-1] ** -0.5 if scale is None else scale)
    if is_causal:
        allowed = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
        scores = scores.masked_fill(~allowed, torch.finfo(scores.dtype).min)
    if attn_mask is not None:
        scores = (
            scores.masked_fill(~attn_mask, torch.finfo(scores.dtype).min)
            if attn_mask.dtype == torch.bool
            else scores + attn_mask
        )
    pattern = visit("pattern", _softmax(visit("scores", scores), None).to(value.dtype))
    return pattern @ value


@contextmanager
def _watched(modules: Mapping[torch.nn.Module, Visit]) -> Iterator[None]:
    watch = _Watch()

    def enter(visit: Visit) -> Callable[..., Any]:
        def begin(args: Any, kwargs: Any) -> Any:
            watch.visit = visit
            return args, kwargs

        return begin

    def leave(output: Any) -> Any:
        watch.visit = None
        return output

    hooks = [
        hook
        for module, visit in modules.items()
        for hook in (Hook(module, "input", enter(visit)), Hook(module, "output", leave))
    ]
    with hooked(hooks), watch:
        yield


class _Calls(TorchFunctionMode):
    """While a module runs, change the result of the first call of one function."""

    def __init__(self) -> None:
        super().__init__()
        self.waiting: tuple[Any, Change] | None = None

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Change the awaited call; let all others pass."""
        result = func(*args, **(kwargs or {}))
        if self.waiting is None or func is not self.waiting[0]:
            return result
        change, self.waiting = self.waiting[1], None
        return change(result)


@contextmanager
def calls_changed(calls: Sequence[tuple[torch.nn.Module, str, Change]]) -> Iterator[None]:
    """Let each function given see and replace what its module's first call of a `torch.nn.functional` returns."""
    if not calls:
        yield
        return
    mode = _Calls()

    def enter(name: str, change: Change) -> Callable[..., Any]:
        def begin(args: Any, kwargs: Any) -> Any:
            mode.waiting = (getattr(torch.nn.functional, name), change)
            return args, kwargs

        return begin

    def leave(output: Any) -> Any:
        mode.waiting = None
        return output

    hooks = [
        hook
        for module, name, change in calls
        for hook in (Hook(module, "input", enter(name, change)), Hook(module, "output", leave))
    ]
    with hooked(hooks), mode:
        yield
