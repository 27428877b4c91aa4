"""Attention patterns of the layers asked for, and the gradients of a readout with respect to them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from pellucid.core.axes import Site
from pellucid.core.errors import InputError, ModelError, TargetError
from pellucid.engine.gradients import frozen
from pellucid.engine.planning import in_batches
from pellucid.engine.reading import read
from pellucid.engine.variants import whole
from pellucid.models.edits import Context, Edit, EditFunction
from pellucid.models.layout import depth, main_stack

if TYPE_CHECKING:
    from pellucid.engine.question import Question
    from pellucid.models.subject import Subject


def chosen_layers(subject: Subject, layers: Sequence[int] | None, stack: str) -> list[int]:
    """Return the layers asked for (None: all; negative ones count from the end), in the order of the model.

    Raises:
        InputError: a layer that the model lacks.
    """
    count = depth(subject.model, subject.need_layout(), stack)
    wanted = range(count) if layers is None else layers
    bad = [layer for layer in wanted if not -count <= layer < count]
    if bad or not len(wanted):
        raise InputError(
            f"The layers {list(wanted)} were asked for, but {subject.name} has layers 0 to {count - 1}; name one or "
            "more of these."
        )
    return sorted({layer % count for layer in wanted})


def pattern_sites(subject: Subject, layers: Sequence[int] | None = None) -> list[str]:
    """Return the names of the self-attention patterns over the prompt: those of the encoder in an encoder-decoder."""
    stack = "encoder" if main_stack(subject.need_layout()) == "decoder" else ""
    return [str(Site(stack, layer, "attn.pattern")) for layer in chosen_layers(subject, layers, stack)]


def gradients_at_patterns(
    question: Question, sites: Sequence[str]
) -> tuple[torch.Tensor, dict[str, tuple[torch.Tensor, torch.Tensor]]]:
    """Return the scores [targets], and for each site its pattern and the gradients with respect to it.

    Patterns are [head, query, key], gradients [targets, head, query, key], float64 on the CPU; in decoders, tokens of a
    continuation stand behind those of the prompt. Exact (automatic differentiation): a pattern's gradient counts what
    later layers make of it. One backward pass per target serves all sites.

    Raises:
        TargetError: a contrast between continuations that are fed in differently.
        ModelError: a gradient that is not finite.
    """
    ((values, patterns, gradients),) = _differentiated(question, sites, [1.0])
    return values, {site: (patterns[i], gradients[i]) for i, site in enumerate(sites)}


def mean_gradient(
    question: Question, site: str, places: np.ndarray, weights: np.ndarray
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return a pattern A and the weighted mean of the gradients dF/dA at places * A, for all heads of the site.

    Args:
        question: what is asked.
        site: a pattern.
        places: shares of the pattern, from 0 to 1.
        weights: of the places.

    Returns:
        The pattern [head, query, key] and the mean [targets, head, query, key], float64 on the CPU. With nodes and
        weights of a quadrature this is the integral over the share; errors as in `gradients_at_patterns`.
    """
    pattern, total = torch.empty(0), torch.zeros(())

    def run(batch: list[tuple[float, float]]) -> list[None]:
        nonlocal pattern, total
        found = _differentiated(question, [site], [place for place, _ in batch])
        for (_, weight), (_, (own,), (gradient,)) in zip(batch, found, strict=True):
            pattern, total = own, total + weight * gradient
        return [None] * len(batch)

    length = len(question.tokens) + max(len(forced) for forced in question.readout.forced)
    pairs = list(zip(places.tolist(), weights.tolist(), strict=True))
    in_batches(pairs, [length] * len(pairs), run)
    return pattern, total


def _differentiated(
    question: Question, sites: Sequence[str], shares: Sequence[float]
) -> list[tuple[torch.Tensor, list[torch.Tensor], list[torch.Tensor]]]:
    """Return per share: scores, the patterns before they were scaled, and the gradients where they were."""
    subject, tokens, readout = question.subject, question.tokens, question.readout
    if len(readout.forced) > 1:
        raise TargetError(
            f"Gradients of attention belong to one run, but {readout.description} needs two; contrast single tokens."
        )
    own: list[dict[str, torch.Tensor]] = [{} for _ in shares]
    used: list[dict[str, torch.Tensor]] = [{} for _ in shares]
    edits = [
        tuple(Edit(site, _scaled(share, site, own[i], used[i])) for site in sites) for i, share in enumerate(shares)
    ]
    with subject.lock, frozen(subject.model), torch.enable_grad():
        values, _ = read(subject, tokens, readout, [whole(tokens)] * len(shares), edits=edits, grad=True)
        leaves = [row[site] for row in used for site in sites]
        # Rows do not influence each other, so the gradient of a column's sum holds every row's own gradient.
        gradients = _backward(values.sum(0), leaves)
    subject.count(backwards=values.numel())
    if not all(bool(torch.isfinite(gradient).all()) for gradient in gradients):
        raise ModelError(
            f"The gradient of {readout.description} is not finite; load the model in float32 and check its weights."
        )
    count = len(sites)
    return [
        (values[i].detach().double().cpu(), [own[i][s] for s in sites], gradients[i * count : (i + 1) * count])
        for i in range(len(shares))
    ]


def _scaled(share: float, site: str, own: dict[str, torch.Tensor], used: dict[str, torch.Tensor]) -> EditFunction:
    def scale(value: torch.Tensor, context: Context) -> torch.Tensor:
        own[site] = value.detach().double().cpu()
        new = value if share == 1.0 else share * value
        used[site] = new if new.requires_grad else new.detach().clone().requires_grad_()
        return used[site]

    return scale


def _backward(columns: torch.Tensor, values: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """Return the gradients [targets, ...] of every value, float64 on the CPU."""
    found = []
    for number, column in enumerate(columns):
        last = number == len(columns) - 1
        grads = torch.autograd.grad(column, list(values), retain_graph=not last, allow_unused=True)
        found.append([torch.zeros_like(v) if g is None else g for g, v in zip(grads, values, strict=True)])
    return [torch.stack(grads).double().cpu() for grads in zip(*found, strict=True)]
