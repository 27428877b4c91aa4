"""Gradients of many targets of many rows, from a graph that one forward pass left."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch

from pellucid.models.hooks import Hook, hooked
from pellucid.models.taps import first_input

if TYPE_CHECKING:
    from pellucid.models.subject import Subject

TARGETS_AT_ONCE = 8  # gradients of so many targets travel backward together
Ends = list[tuple[torch.Tensor, torch.Tensor]]


@contextmanager
def frozen(model: Any) -> Iterator[None]:
    """Treat weights as constants, so that a backward pass computes and keeps what activations need only."""
    learning = [weight for weight in model.parameters() if weight.requires_grad]
    try:
        for weight in learning:
            weight.requires_grad_(False)
        yield
    finally:
        for weight in learning:
            weight.requires_grad_(True)


@contextmanager
def cut(subject: Subject, wanted: bool = True) -> Iterator[Ends]:
    """Cut the graph before the unembedding in this context, and keep both sides of every cut."""
    ends: Ends = []

    def at_input(args: Any, kwargs: Any) -> Any:
        value, give = first_input(args, kwargs)
        if not value.requires_grad:
            return args, kwargs
        ends.append((value, value.detach().requires_grad_()))
        return give(ends[-1][1])

    module = subject.model.get_output_embeddings() if wanted else None
    with hooked([Hook(module, "input", at_input)] if module is not None else []):
        yield ends


def through(values: torch.Tensor, ends: Ends, first: int, leaves: Sequence[torch.Tensor]) -> torch.Tensor:
    """Return the gradients [targets, points, positions, ...] of values that each depend on one position of the end.

    The unembedding is differentiated once for all targets, since the row at `first` + k serves target k alone.
    """
    size = values.shape[1]
    slopes = torch.autograd.grad(values.sum(), [leaf for _, leaf in ends])
    before, found = [value for value, _ in ends], []
    for start in range(0, size, TARGETS_AT_ONCE):
        chosen = range(start, min(start + TARGETS_AT_ONCE, size))
        directions = [slope.new_zeros(len(chosen), *slope.shape) for slope in slopes]
        for number, target in enumerate(chosen):
            for direction, slope in zip(directions, slopes, strict=True):
                direction[number, :, first + target] = slope[:, first + target]
        found.append(_several(before, leaves, directions, last=chosen.stop == size))
    return torch.cat(found)


def through_all(values: torch.Tensor, ends: Ends, leaves: Sequence[torch.Tensor], count: int) -> torch.Tensor:
    """Do the work of `through` for so many gradients that are zero nowhere: what the last of a long row takes."""
    slopes = torch.autograd.grad(values.sum(), [leaf for _, leaf in ends])
    drawn = torch.Generator().manual_seed(0)
    directions = [torch.randn(count, *slope.shape, generator=drawn).to(slope) for slope in slopes]
    return _several([value for value, _ in ends], leaves, directions, last=True)


def backward(values: torch.Tensor, leaves: Sequence[torch.Tensor]) -> torch.Tensor:
    """Return the gradients [targets, points, positions, ...] of values [points, targets]."""
    # Rows do not influence each other, so the gradient of a column's sum holds every row's own gradient.
    columns = values.sum(0)
    found = []
    for first in range(0, len(columns), TARGETS_AT_ONCE):
        last = first + TARGETS_AT_ONCE >= len(columns)
        chosen = list(range(first, min(first + TARGETS_AT_ONCE, len(columns))))
        directions = torch.eye(len(columns), dtype=columns.dtype, device=columns.device)[chosen]
        found.append(_several([columns], leaves, [directions], last))
    return torch.cat(found)


def _several(
    outputs: Sequence[torch.Tensor], leaves: Sequence[torch.Tensor], directions: Sequence[torch.Tensor], last: bool
) -> torch.Tensor:
    """Return the gradients [directions, points, positions, ...] of outputs; the graph is freed after the last."""
    count = len(directions[0])
    if count > 1:
        try:
            return torch.stack(together(outputs, leaves, directions), 1)
        except RuntimeError:  # an operation whose backward cannot be batched
            pass
    one_by_one = []
    for number in range(count):
        keep, along = not last or number < count - 1, [direction[number] for direction in directions]
        grads = torch.autograd.grad(outputs, leaves, along, retain_graph=keep, materialize_grads=True)
        one_by_one.append(torch.stack(grads)[None])
    return torch.cat(one_by_one)


def together(
    outputs: Sequence[torch.Tensor], leaves: Sequence[torch.Tensor], directions: Sequence[torch.Tensor],
    keep: bool = True,
) -> tuple[torch.Tensor, ...]:  # fmt: skip
    """Return the gradients [directions, ...] of each leaf along directions [directions, ...] of outputs, all at once.

    Zeros for a leaf that no output depends on; `keep` the graph for another call.

    Raises:
        RuntimeError: an operation whose backward cannot be batched.
    """

    def one(*along: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return torch.autograd.grad(outputs, leaves, along, retain_graph=keep, materialize_grads=True)

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "There is a performance drop")  # an operation that goes one by one inside
        return torch.func.vmap(one)(*directions)  # type: ignore[no-any-return]
