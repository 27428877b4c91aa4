"""Values and gradients of a readout at many sites at once, for many embeddings: one backward pass serves them all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

from pellucid.core.axes import parse_site
from pellucid.core.errors import ModelError, TargetError
from pellucid.core.tokens import Tokens
from pellucid.engine.gradients import frozen
from pellucid.engine.planning import TOKENS_PER_GRADIENT_BATCH, in_batches
from pellucid.engine.reading import read
from pellucid.engine.readout import Readout
from pellucid.engine.variants import token_site, whole
from pellucid.models.edits import Context, Edit, EditFunction

if TYPE_CHECKING:
    from pellucid.models.subject import Subject


class AtSite(NamedTuple):
    """Values [points, ...] and gradients [points, targets, ...] at one site, in float64 on the CPU."""

    values: torch.Tensor
    gradients: torch.Tensor


def gradients_at(
    subject: Subject, tokens: Tokens, readout: Readout, points: torch.Tensor, sites: Sequence[str]
) -> tuple[torch.Tensor, dict[str, AtSite]]:
    """Return the scores at given token embeddings, and what every site holds and passes back there.

    Args:
        subject: the model.
        tokens: the prompt.
        readout: what is read; with `each`, every target has its own gradient.
        points: token embeddings, [points, positions, dimension].
        sites: site names.

    Returns:
        Scores [points, targets], and per site values and gradients at the prompt's positions (all of the decoder's, for
        its sites). Exact (automatic differentiation).

    Raises:
        TargetError: a contrast between continuations that are fed in differently.
        ModelError: a gradient that is not finite.
    """
    if len(readout.forced) > 1:
        raise TargetError(
            f"Gradients at sites belong to one run, but {readout.description} needs two; contrast single tokens."
        )

    def run(batch: list[torch.Tensor]) -> list[tuple[torch.Tensor, list[AtSite]]]:
        kept: list[dict[str, torch.Tensor]] = [{} for _ in batch]
        edits = [_edits(subject, point, sites, into) for point, into in zip(batch, kept, strict=True)]
        with subject.lock, frozen(subject.model), torch.enable_grad():
            values, _ = read(subject, tokens, readout, [whole(tokens)] * len(batch), edits=edits, grad=True)
            # Rows do not influence each other, so the gradient of a column's sum holds every row's own gradient.
            found = _backward(values.sum(0), [row[name] for row in kept for name in sites])
        subject.count(backwards=len(batch) * values.shape[1])
        answers = []
        for row, inside in enumerate(kept):
            own = zip(sites, found[row * len(sites) : (row + 1) * len(sites)], strict=True)
            at = [AtSite(_cut(name, inside[name], len(tokens)), _cut(name, g, len(tokens))) for name, g in own]
            answers.append((values[row].detach(), at))
        return answers

    length = len(tokens) + max(len(forced) for forced in readout.forced)
    answers = in_batches(list(points), [length] * len(points), run, TOKENS_PER_GRADIENT_BATCH)
    by_site = {
        name: AtSite(*(torch.stack(part) for part in zip(*(sited[i] for _, sited in answers), strict=True)))
        for i, name in enumerate(sites)
    }
    if not all(bool(torch.isfinite(site.gradients).all()) for site in by_site.values()):
        raise ModelError(
            f"The gradient of {readout.description} is not finite; load the model in float32 and check its weights."
        )
    return torch.stack([values for values, _ in answers]), by_site


@torch.no_grad()
def values_at_sites(
    subject: Subject, tokens: Tokens, readout: Readout, points: torch.Tensor, sites: Sequence[str]
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Return scores [points, targets] and site values [points, ...] at given embeddings, as `gradients_at` does."""

    def run(batch: list[torch.Tensor]) -> list[tuple[torch.Tensor, list[torch.Tensor]]]:
        kept: list[dict[str, torch.Tensor]] = [{} for _ in batch]
        edits = [_edits(subject, point, sites, into) for point, into in zip(batch, kept, strict=True)]
        values, _ = read(subject, tokens, readout, [whole(tokens)] * len(batch), edits=edits)
        return [
            (value, [_cut(name, row[name], len(tokens)) for name in sites])
            for value, row in zip(values, kept, strict=True)
        ]

    length = len(tokens) + max(len(forced) for forced in readout.forced)
    answers = in_batches(list(points), [length] * len(points), run)
    found = {name: torch.stack([inside[i] for _, inside in answers]) for i, name in enumerate(sites)}
    return torch.stack([values for values, _ in answers]), found


def summed(values: torch.Tensor, site: str) -> tuple[str, torch.Tensor]:
    """Sum what belongs to a site over all axes but one: head, else neuron, else position (leading axes stay).

    Returns the name of the axis that is left, and the sums.
    """
    axes = parse_site(site).axes
    axis = next(name for name in ("head", "neuron", "position") if name in axes)
    first = values.ndim - len(axes)
    gone = [first + i for i, name in enumerate(axes) if name != axis]
    return axis, values.sum(gone) if gone else values


def stacked(layers: Sequence[np.ndarray]) -> np.ndarray:
    """Stack the answers of layers; zeros stand for the heads or neurons that a layer lacks and another has."""
    shape = np.max([layer.shape for layer in layers], axis=0)
    ends = [[(0, int(more)) for more in shape - layer.shape] for layer in layers]
    return np.stack([np.pad(layer, end) for layer, end in zip(layers, ends, strict=True)])


def _edits(
    subject: Subject, point: torch.Tensor, sites: Sequence[str], kept: dict[str, torch.Tensor]
) -> tuple[Edit, ...]:
    where = {"position": tuple(range(len(point)))}
    # The embeddings are a leaf, so that every site lies in the graph also where the weights are frozen.
    start = Edit(token_site(subject), "set", point.detach().clone().requires_grad_(), where)
    return (start, *(Edit(name, _keeping(kept, name)) for name in sites))


def _keeping(kept: dict[str, torch.Tensor], name: str) -> EditFunction:
    def keep(value: torch.Tensor, context: Context) -> torch.Tensor:
        kept[name] = value if value.requires_grad else value.detach().clone().requires_grad_()
        return kept[name]

    return keep


def _backward(columns: torch.Tensor, values: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """Return the gradients [targets, ...] of every value."""
    found = []
    for column in range(len(columns)):
        last = column == len(columns) - 1
        grads = torch.autograd.grad(columns[column], values, retain_graph=not last, allow_unused=True)
        found.append([torch.zeros_like(v) if g is None else g for g, v in zip(grads, values, strict=True)])
    return [torch.stack(grads) for grads in zip(*found, strict=True)]


def _cut(name: str, value: torch.Tensor, length: int) -> torch.Tensor:
    """Return a value (or gradients, targets in front) at the prompt's positions, in float64 on the CPU."""
    site = parse_site(name)
    cut = tuple(
        slice(0, length) if axis in ("position", "query", "key") and site.stack != "decoder" else slice(None)
        for axis in site.axes
    )
    return value.detach()[(..., *cut)].double().cpu()
