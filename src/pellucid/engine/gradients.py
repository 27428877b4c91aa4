"""Gradients of a readout with respect to the values at a site: by default the token embeddings of the prompt."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import torch

from pellucid.core.axes import parse_site
from pellucid.core.errors import ModelError
from pellucid.core.tokens import Tokens
from pellucid.engine.planning import in_batches
from pellucid.engine.reading import read
from pellucid.engine.readout import Readout
from pellucid.engine.variants import token_site, whole
from pellucid.models.edits import Edit

if TYPE_CHECKING:
    from pellucid.models.subject import Subject


def site_values(subject: Subject, tokens: Tokens, readout: Readout, site: str | None = None) -> torch.Tensor:
    """Return the values at a site for the prompt alone: [positions, ...] (default: token embeddings)."""
    name = site or token_site(subject)
    with torch.no_grad():
        _, output = read(subject, tokens, readout, [whole(tokens)], capture=[name])
    assert output is not None
    return _of_prompt(output.row(name, 0), name, len(tokens)).detach()


def value_and_gradient(
    subject: Subject, tokens: Tokens, readout: Readout, points: torch.Tensor, site: str | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return scores and their gradients at given values of a site.

    Args:
        subject: the model.
        tokens: the prompt.
        readout: what is read; with `each`, every target has its own gradient.
        points: values put at the site, [points, positions, ...]; positions are those of the prompt.
        site: a site name; default the token embeddings.

    Returns:
        values [points, targets] and gradients [points, targets, positions, ...]. Exact (automatic differentiation).
    """
    name = site or token_site(subject)

    def run(batch: list[torch.Tensor]) -> list[tuple[torch.Tensor, torch.Tensor]]:
        leaves = [point.detach().clone().requires_grad_() for point in batch]
        where = {parse_site(name).axes[0]: tuple(range(len(tokens)))}
        edits = [(Edit(name, "set", leaf, where),) for leaf in leaves]
        with torch.enable_grad():
            values, _ = read(subject, tokens, readout, [whole(tokens)] * len(leaves), edits=edits, grad=True)
            grads = list(_each(values, leaves))
        subject.count(backwards=len(leaves) * values.shape[1])
        return [(values[i].detach(), torch.stack([g[i] for g in grads])) for i in range(len(leaves))]

    answers = in_batches(list(points), [len(tokens) + max(len(f) for f in readout.forced)] * len(points), run)
    gradients = torch.stack([gradient for _, gradient in answers])
    if not bool(torch.isfinite(gradients).all()):
        raise ModelError(
            f"The gradient of {readout.description} is not finite; load the model in float32 and check its weights."
        )
    return torch.stack([values for values, _ in answers]), gradients


def _each(values: torch.Tensor, leaves: Sequence[torch.Tensor]) -> Iterator[tuple[torch.Tensor, ...]]:
    # Rows do not influence each other, so the gradient of a column's sum holds every row's own gradient.
    for column in range(values.shape[1]):
        last = column == values.shape[1] - 1
        found = torch.autograd.grad(values[:, column].sum(), leaves, retain_graph=not last, allow_unused=True)
        yield tuple(torch.zeros_like(leaf) if g is None else g for leaf, g in zip(leaves, found, strict=True))


def _of_prompt(value: torch.Tensor, site: str, length: int) -> torch.Tensor:
    axes = parse_site(site).axes
    return value[tuple(slice(0, length) if axis in ("position", "query", "key") else slice(None) for axis in axes)]
