"""How one site is read and written on native modules: a tap is data, its arithmetic is here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch

from pellucid.core.errors import LayoutError

Fused = Literal["", "concat", "per_head", "by_group", "interleaved", "halves"]


@dataclass(frozen=True)
class Tap:
    """Where a value lives: the input or output of a module, given by its path inside the block (or the backbone).

    `heads` names the head count of the last axis: "" (none), "q" (query heads) or "kv" (key/value heads). `fused`
    says how a joint q/k/v projection lays out its output and `part` which of the three is meant: `concat` = all q,
    all k, all v; `per_head` = for each head q, k, v; `by_group` = for each key/value head its q heads, then k, then
    v; `interleaved` = q, k, v first and heads after; `halves` = the gate, then the up projection of a feed-forward
    layer. `flat` marks a value whose rows and positions are merged. `key` picks an entry of a tuple or a model
    output.

    `stream` marks an input that also flows on beside the module (the residual stream before a norm), so that an edit is
    written into that very tensor. `reused` marks an output that the model changes in place later, so that a copy is
    handed on. `call` names a function of `torch.nn.functional`: the value is what it returns when the module calls it
    first. `once` marks a module that is called again later for something else, so that only its first call is the
    site.
    """

    module: str
    side: Literal["input", "output"] = "output"
    heads: Literal["", "q", "kv"] = ""
    fused: Fused = ""
    part: Literal["", "q", "k", "v", "gate", "up"] = ""
    flat: bool = False
    key: int | str = 0
    stream: bool = False
    reused: bool = False
    call: str = ""
    once: bool = False


@dataclass(frozen=True)
class Heads:
    """Head counts and widths of a stack: query heads, key/value heads, width per head."""

    query: int
    key_value: int
    width: int


def unwrap(raw: Any, key: int | str) -> torch.Tensor:
    """Return the tensor inside a module's output: itself, an entry of a tuple, or a field of a model output."""
    if isinstance(raw, torch.Tensor):
        return raw
    value = raw[key]
    if not isinstance(value, torch.Tensor):
        raise LayoutError(
            f"A tap expected a tensor at entry {key!r} of a {type(raw).__name__}, but found "
            f"{type(value).__name__}; mend the row."
        )
    return value


def rewrap(raw: Any, key: int | str, value: torch.Tensor) -> Any:
    """Return the module's output with the tensor replaced, of the same type as before."""
    if isinstance(raw, torch.Tensor):
        return value
    if isinstance(raw, tuple) and not hasattr(raw, "_fields"):
        return tuple(value if i == key else item for i, item in enumerate(raw))
    output: Any = raw
    output[key] = value
    return output


def first_input(
    args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[torch.Tensor, Callable[[torch.Tensor], tuple[Any, Any]]]:
    """Return the hidden states among a module's inputs and a function that puts new ones in their place."""
    if args and isinstance(args[0], torch.Tensor):
        return args[0], lambda value: ((value, *args[1:]), kwargs)
    for name in ("hidden_states", "input", "x", "inputs_embeds"):
        if isinstance(kwargs.get(name), torch.Tensor):
            return kwargs[name], lambda value, name=name: (args, {**kwargs, name: value})
    raise LayoutError("A tap on a module's input found no hidden states among its arguments; tap its output instead.")


def view(value: torch.Tensor, tap: Tap, heads: Heads, batch: int) -> torch.Tensor:
    """Return the site's value [batch, position, ...] out of the module's tensor."""
    if tap.flat:
        value = value.reshape(batch, -1, *value.shape[1:])
    if tap.fused:
        return _split(value, tap, heads)
    if tap.heads:
        count = heads.query if tap.heads == "q" else heads.key_value
        return value.reshape(*value.shape[:2], count, -1)
    return value


def unview(value: torch.Tensor, new: torch.Tensor, tap: Tap, heads: Heads) -> torch.Tensor:
    """Return the module's tensor with the site's value replaced by `new`."""
    if tap.fused:
        return _join(value, new, tap, heads)
    return new.reshape(value.shape)


def _groups(tap: Tap, heads: Heads) -> tuple[int, int, int]:
    per_group = heads.query // heads.key_value
    return heads.key_value, per_group, heads.width


def _split(value: torch.Tensor, tap: Tap, heads: Heads) -> torch.Tensor:
    lead = value.shape[:2]
    if tap.fused == "halves":
        half = value.shape[-1] // 2
        return value.narrow(-1, half * ("gate", "up").index(tap.part), half)
    if tap.fused == "concat":
        # Views made by narrow, other than those of split, may be written into while gradients are kept.
        sizes = [heads.query * heads.width, heads.key_value * heads.width, heads.key_value * heads.width]
        index = "qkv".index(tap.part)
        return value.narrow(-1, sum(sizes[:index]), sizes[index]).reshape(*lead, -1, heads.width)
    if tap.fused == "interleaved":
        return value.reshape(*lead, 3, heads.query, heads.width)[..., "qkv".index(tap.part), :, :]
    if tap.fused == "per_head":
        return value.reshape(*lead, heads.query, 3, heads.width)[..., "qkv".index(tap.part), :]
    kv, per, width = _groups(tap, heads)
    grouped = value.reshape(*lead, kv, per + 2, width)
    if tap.part == "q":
        return grouped[..., :per, :].reshape(*lead, kv * per, width)
    return grouped[..., per + "kv".index(tap.part), :]


def _join(value: torch.Tensor, new: torch.Tensor, tap: Tap, heads: Heads) -> torch.Tensor:
    # Writing through the same views on a clone keeps one description of each layout for reading and writing.
    joined = value.clone()
    target = _split(joined, tap, heads)
    if target.untyped_storage().data_ptr() == joined.untyped_storage().data_ptr():
        target.copy_(new)
        return joined
    kv, per, width = _groups(tap, heads)
    grouped = joined.view(*value.shape[:2], kv, per + 2, width)
    grouped[..., :per, :] = new.reshape(*value.shape[:2], kv, per, width)
    return joined
