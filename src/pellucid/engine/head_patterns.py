"""The attention patterns of chosen layers and heads, with names for the heads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from pellucid.core.errors import InputError
from pellucid.core.tokens import Tokens
from pellucid.engine.capture import capture
from pellucid.models.layout import depth, main_stack

if TYPE_CHECKING:
    from pellucid.models.subject import Subject


def prefix_of(subject: Subject) -> str:
    """Return what site names of the stack that reads the prompt start with: "" or "encoder."."""
    return "encoder." if main_stack(subject.need_layout()) == "decoder" else ""


def chosen_layers(subject: Subject, layers: int | Sequence[int] | None) -> list[int]:
    """Return layer numbers of the stack that reads the prompt; None means all, negative ones count from the last.

    Raises:
        InputError: a layer that the model lacks.
    """
    layout = subject.need_layout()
    stack = prefix_of(subject).rstrip(".")
    count = depth(subject.model, layout, stack if stack in layout.stacks else None)
    wanted = range(count) if layers is None else [layers] if isinstance(layers, int) else layers
    return [one_of(layer, count, "layer") for layer in wanted]


def one_of(number: int, count: int, what: str) -> int:
    """Return a number that may count from the end; raise `InputError` where there is no such `what`."""
    if not -count <= number < count:
        raise InputError(f"There is no {what} {number}; the model has {what}s 0 to {count - 1}.")
    return number % count


def patterns(subject: Subject, tokens: Tokens, layers: int | Sequence[int] | None = None) -> dict[int, np.ndarray]:
    """Return the attention patterns of chosen layers: layer -> [head, query, key], float64.

    Weights are computed in these layers alone; rows sum to 1 (less where a model has attention sinks). For an
    encoder-decoder these are the encoder's.

    Raises:
        InputError: a layer that the model lacks.
    """
    numbers, prefix = chosen_layers(subject, layers), prefix_of(subject)
    found = capture(subject, tokens, [f"{prefix}blocks.{layer}.attn.pattern" for layer in numbers])
    return {n: found[f"{prefix}blocks.{n}.attn.pattern"].double().cpu().numpy() for n in numbers}


def head_names(layers: dict[int, np.ndarray]) -> tuple[str, ...]:
    """Return a name such as "3.1" (layer, head) for every head, layer by layer."""
    return tuple(f"{layer}.{head}" for layer, values in layers.items() for head in range(len(values)))


def role_places(ids: Sequence[int], away: int = 1) -> dict[str, np.ndarray]:
    """Return where heads of a role attend: role -> [query, key] booleans.

    Roles are "previous" (the token before), "duplicate" (the same token earlier) and "induction" (the token after such
    a duplicate); with `away` the token so many places before or after.
    """
    numbers, count = np.array(ids), len(ids)
    offset = np.arange(count)[:, None] - np.arange(count)[None]
    duplicate = (numbers[:, None] == numbers[None]) & (offset > 0)
    after = np.zeros_like(duplicate)
    after[:, away:] = duplicate[:, : count - away]
    return {"previous": offset == away, "duplicate": duplicate, "induction": after & (offset > 0)}
