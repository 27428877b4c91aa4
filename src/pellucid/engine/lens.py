"""What lenses share: where they read the residual stream, what they measure, and what they have learned."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from pellucid.core.axes import Site
from pellucid.core.errors import InputError, SiteError, did_you_mean
from pellucid.core.results import Evidence, Learned, Scores
from pellucid.core.targets import Target
from pellucid.core.tokens import Tokens
from pellucid.engine.readout import Readout
from pellucid.engine.targets import name_of
from pellucid.models.layout import block_sites, depth, main_stack

if TYPE_CHECKING:
    from pellucid.core.params import Measure, TargetLike
    from pellucid.models.subject import Subject

STREAM = ("resid_pre", "resid_mid", "resid_post")


def output_name(subject: Subject, index: int) -> str:
    """Return the text of an output: a token, or the name of a class."""
    if subject.head == "classification":
        names = subject.model.config.id2label or {}
        return str(names.get(index, index))
    return name_of(subject, index)


def stream_sites(subject: Subject, part: str) -> list[str]:
    """Return the names of a place of the residual stream in every block of the stack that feeds the head.

    Raises:
        SiteError: a part that is no place of the residual stream, or that the model lacks.
    """
    if part not in STREAM:
        raise SiteError(
            f"A lens reads the residual stream, but {part!r} is no place of it{did_you_mean(part, STREAM)}; use one of "
            f"{', '.join(STREAM)}."
        )
    layout = subject.need_layout()
    stack = main_stack(layout)
    if str(Site(stack, 0, part)) not in block_sites(subject.model, layout, stack, 0):
        raise SiteError(
            f"{layout.architecture} has no {part!r}, because its blocks add attention and feed-forward in parallel; "
            "use resid_pre or resid_post."
        )
    return [str(Site(stack, layer, part)) for layer in range(depth(subject.model, layout, stack))]


def last_site(subject: Subject) -> str:
    """Return the name of the residual stream behind the last block."""
    return stream_sites(subject, "resid_post")[-1]


def measured_as(readout: Readout, target: TargetLike, measure: Measure) -> Readout:
    """Return the readout with another measure, unless the target names its own or is a function."""
    named = isinstance(target, Target) and target.measure != "auto"
    free = readout.function is not None or named or measure == "auto"
    return readout if free else replace(readout, measure=measure)


def chosen_positions(positions: int | Sequence[int] | None, length: int) -> list[int]:
    """Return positions counted from the start, None meaning all; raise `InputError` for one outside the sequence."""
    if positions is None:
        return list(range(length))
    asked = [positions] if isinstance(positions, int) else [int(p) for p in positions]
    bad = [p for p in asked if not -length <= p < length]
    if bad or not asked:
        raise InputError(
            f"The positions {asked} were asked for, but the sequence has {length}; use 0 to {length - 1}, or negative "
            "ones from the end."
        )
    return [p % length for p in asked]


def layer_grid(
    title: str, values: np.ndarray, words: Sequence[str], tokens: Tokens, positions: Sequence[int], readout: Readout,
    evidence: Evidence,
) -> Scores:  # fmt: skip
    """Return Scores [layer, position] of what was read at some positions, a word in each cell (C order)."""
    return Scores(
        title=title,
        values=values,
        axes=("layer", "position"),
        labels={
            "layer": tuple(str(layer) for layer in range(len(values))),
            "position": tuple(tokens.pieces[p] for p in positions),
        },
        unit=readout.unit,
        sign="larger means that the layer favours the target",
        tokens=tokens if list(positions) == list(range(len(tokens))) else None,
        target=readout.description,
        words=tuple(words),
        evidence=(evidence,),
    )


def translated(lens: Learned, layer: int, vectors: torch.Tensor) -> torch.Tensor:
    """Return vectors [..., dimension] of a layer moved by an affine lens: x + x D_l + b_l. Exact for what it states."""
    matrix, bias = (torch.as_tensor(lens.tensors[name][layer]).to(vectors) for name in ("matrices", "biases"))
    return vectors + vectors @ matrix + bias


def check_lens(lens: Learned, layers: int, dimensions: int) -> None:
    """Raise `InputError` for a lens that was not learned for a model of this size."""
    shape = np.shape(lens.tensors.get("matrices", np.zeros(0)))
    if lens.apply != "affine_lens" or shape != (layers, dimensions, dimensions):
        raise InputError(
            f"The lens holds {lens.apply or 'nothing'} of shape {shape}, but this model has {layers} layers of width "
            f"{dimensions}; pass what tuned_lens or future_lens learned for this model."
        )
