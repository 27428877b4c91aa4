"""Module hooks that always come off again. The only file that registers hooks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch


@dataclass(frozen=True)
class Hook:
    """A function on the inputs or the output of one module.

    For `side="input"` the function maps (args, kwargs) to (args, kwargs); for `side="output"` it maps output to output.
    """

    module: torch.nn.Module
    side: Literal["input", "output"]
    function: Callable[..., Any]


@contextmanager
def hooked(hooks: Sequence[Hook]) -> Iterator[None]:
    """Hold hooks on modules, in the order given, and remove every one of them also when something raises."""
    handles: list[torch.utils.hooks.RemovableHandle] = []
    try:
        for hook in hooks:
            if hook.side == "input":
                handles.append(hook.module.register_forward_pre_hook(_before(hook.function), with_kwargs=True))
            else:
                handles.append(hook.module.register_forward_hook(_after(hook.function)))
        yield
    finally:
        for handle in handles:
            handle.remove()


def _before(function: Callable[..., Any]) -> Callable[..., Any]:
    def pre_hook(module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return function(args, kwargs)

    return pre_hook


def _after(function: Callable[..., Any]) -> Callable[..., Any]:
    def post_hook(module: torch.nn.Module, args: tuple[Any, ...], output: Any) -> Any:
        return function(output)

    return post_hook


@contextmanager
def acting(work: Mapping[torch.nn.Module, Callable[..., Any]]) -> Iterator[None]:
    """Let functions do the work of modules (their hooks still run) and give the modules their work back after."""
    before = {module: vars(module).get("forward") for module in work}
    try:
        for module, function in work.items():
            module.forward = function  # type: ignore[method-assign]
        yield
    finally:
        for module, own in before.items():
            if own is None:
                vars(module).pop("forward", None)
            else:
                module.forward = own


def parts_of(output: Any) -> int:
    """Return the length of a module's output, 0 where it is no tuple."""
    return len(output) if isinstance(output, tuple) else 0


def bypassed(modules: Sequence[torch.nn.Module], parts: int) -> AbstractContextManager[None]:
    """Let modules hand their input on unchanged: alone where `parts` is 0, else first in a tuple of so many."""

    def skip(hidden_states: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        return (hidden_states, *[None] * (parts - 1)) if parts else hidden_states

    return acting(dict.fromkeys(modules, skip))
