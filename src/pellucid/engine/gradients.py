"""Gradients of a readout with respect to the values at a site: by default the token embeddings of the prompt."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

import torch
from torch.utils.checkpoint import checkpoint

from pellucid.core.axes import parse_site
from pellucid.core.errors import ModelError, ResourceError
from pellucid.core.tokens import Tokens
from pellucid.engine.backward import backward, cut, frozen, through
from pellucid.engine.planning import TOKENS_PER_GRADIENT_BATCH, in_batches
from pellucid.engine.reading import read
from pellucid.engine.readout import Readout
from pellucid.engine.variants import row, token_site, whole
from pellucid.models.batched_gradients import AttentionTogether
from pellucid.models.edits import Edit
from pellucid.models.forward import forward
from pellucid.models.hooks import acting
from pellucid.models.kernels import first_order, plain, session
from pellucid.models.layout import block_of, depth

if TYPE_CHECKING:
    from pellucid.models.subject import Subject


def site_values(subject: Subject, tokens: Tokens, readout: Readout, site: str | None = None) -> torch.Tensor:
    """Return the values at a site for the prompt alone: [positions, ...] (default: token embeddings)."""
    name = site or token_site(subject)
    forced = readout.forced[0]
    with torch.no_grad():
        output = forward(subject, [row(subject, tokens, whole(tokens), forced)], capture=[name], stop=True)
    return _of_prompt(output.row(name, 0), name, len(tokens)).detach()


def values_at(
    subject: Subject, tokens: Tokens, readout: Readout, points: torch.Tensor, site: str | None = None
) -> torch.Tensor:
    """Return the scores [points, targets] at given values [points, positions, ...] of a site (default: embeddings)."""
    name = site or token_site(subject)

    def run(batch: list[torch.Tensor]) -> list[torch.Tensor]:
        edits = [(put(name, point, len(tokens)),) for point in batch]
        values, _ = read(subject, tokens, readout, [whole(tokens)] * len(batch), edits=edits)
        return list(values)

    with torch.no_grad():
        lengths = [len(tokens) + max(len(f) for f in readout.forced)] * len(points)
        return torch.stack(in_batches(list(points), lengths, run))


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
        values [points, targets] and gradients [points, targets, positions, ...]. Exact (automatic differentiation);
        where memory runs out for a single point and nothing is put inside a block, blocks are computed again on the
        way back.
    """
    name = site or token_site(subject)
    outside = parse_site(name).part in ("embed", "embed.token")

    def run(batch: list[torch.Tensor]) -> list[tuple[torch.Tensor, torch.Tensor]]:
        try:
            return _differentiated(subject, tokens, readout, batch, name, outside)
        except ResourceError:
            if len(batch) > 1 or "" not in subject.need_layout().stacks or not _between_blocks(subject, name):
                raise
            with subject.lock, plain(), recomputed(subject):
                return _differentiated(subject, tokens, readout, batch, name)

    length = len(tokens) + max(len(f) for f in readout.forced)
    with session(subject, (1 + readout.size) * length * len(points)):
        answers = in_batches(list(points), [length] * len(points), run, TOKENS_PER_GRADIENT_BATCH)
    return torch.stack([values for values, _ in answers]), torch.stack([gradient for _, gradient in answers])


def _differentiated(
    subject: Subject,
    tokens: Tokens,
    readout: Readout,
    points: Sequence[torch.Tensor],
    site: str,
    outside: bool = False,
) -> list[tuple[torch.Tensor, torch.Tensor]]:
    leaves = [point.detach().clone().requires_grad_() for point in points]
    edits = [(put(site, leaf, len(tokens)),) for leaf in leaves]
    each = readout.each and readout.size > 1 and readout.kind == "next"
    with subject.lock, frozen(subject.model), first_order(), torch.enable_grad():
        with cut(subject, each) as ends, AttentionTogether() if each else nullcontext():
            rows = [whole(tokens)] * len(leaves)
            values, _ = read(subject, tokens, readout, rows, edits=edits, grad=True, outside=outside)
        first = 0 if subject.kind == "encoder-decoder" else len(tokens) - 1
        gradients = through(values, ends, first, leaves) if ends else backward(values, leaves)
    subject.count(backwards=len(leaves) * values.shape[1])
    if not bool(torch.isfinite(gradients).all()):
        raise ModelError(
            f"The gradient of {readout.description} is not finite; load the model in float32 and check its weights."
        )
    return list(zip(values.detach(), gradients.transpose(0, 1), strict=True))


def _between_blocks(subject: Subject, site: str) -> bool:
    """Return whether nothing is put inside a block, where it would be missing when that is computed again."""
    parts = [parse_site(name).part for name in (site, *(edit.site for edit in subject.edits))]
    return all(part in ("embed", "embed.token", "resid_pre", "resid_post") for part in parts)


def recomputed(subject: Subject) -> AbstractContextManager[None]:
    """Keep only the inputs of blocks for the backward pass; what is inside them is computed again."""
    layout = subject.need_layout()
    work = {}
    for layer in range(depth(subject.model, layout)):
        block, _ = block_of(subject.model, layout.stacks[""], layer)
        work[block] = _checkpointed(block.forward)
    return acting(work)


def _checkpointed(own: Any) -> Any:
    def run(*args: Any, **kwargs: Any) -> Any:
        return checkpoint(own, *args, use_reentrant=False, preserve_rng_state=False, **kwargs)

    return run


def put(site: str, value: torch.Tensor, length: int) -> Edit:
    """Return the edit that puts values at the prompt's positions of a site."""
    return Edit(site, "set", value, {parse_site(site).axes[0]: tuple(range(length))})


def _of_prompt(value: torch.Tensor, site: str, length: int) -> torch.Tensor:
    axes = parse_site(site).axes
    return value[tuple(slice(0, length) if axis in ("position", "query", "key") else slice(None) for axis in axes)]
