"""The head of a model on its own: what vectors of the residual stream say when nothing but the head follows."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from pellucid.core.axes import Site
from pellucid.core.errors import CapabilityError, InputError, SiteError, did_you_mean
from pellucid.core.results import Evidence, Learned, Scores
from pellucid.core.targets import Target
from pellucid.core.tokens import Tokens
from pellucid.engine.gradients import frozen
from pellucid.engine.readout import Readout
from pellucid.engine.targets import name_of
from pellucid.engine.variants import decoder_start
from pellucid.models.batch import Row
from pellucid.models.forward import forward
from pellucid.models.hooks import Hook, acting, hooked, parts_of
from pellucid.models.layout import block_of, block_sites, depth, main_stack

if TYPE_CHECKING:
    from pellucid.core.params import Measure, TargetLike
    from pellucid.models.subject import Subject

NUMBERS_AT_ONCE = 2**24
WIDEST = 256
STREAM = ("resid_pre", "resid_mid", "resid_post")


def outputs_of(subject: Subject, vectors: torch.Tensor, *, grad: bool = False) -> torch.Tensor:
    """Return what the model's head makes of vectors: [vectors, dimension] -> [vectors, outputs].

    The native model runs with its blocks replaced by the vectors, so final norm, projection,
    scale, cap and bias are the model's own. Exact at the last block's output, for heads that read one position. Takes
    no pass through the blocks, and none is counted; edits behind the last block do not act.

    Args:
        subject: the model.
        vectors: rows; the caller keeps them as few as `at_once` says.
        grad: keep the graph, weights frozen.

    Raises:
        CapabilityError: a model without a head.
    """
    if subject.head == "none" or subject.model is None:
        raise CapabilityError(
            f"A lens reads vectors through the head of a model, but {subject.name} ({subject.kind}) has none; load the "
            "model with its language model head or classifier."
        )
    plain = subject.without_edits()
    # Language model heads work position by position, so one row carries many vectors; classifiers pool a row.
    width = 1 if plain.head == "classification" else min(len(vectors), plain.max_length or WIDEST, WIDEST)
    rows = -(-len(vectors) // width)
    ids = (plain.pad_id,) * width
    token = Row((plain.pad_id,), (decoder_start(plain),) * width) if plain.kind == "encoder-decoder" else Row(ids)
    with plain.lock, plain.uncounted():
        parts = _parts(plain, token)
        filled = torch.nn.functional.pad(vectors, (0, 0, 0, rows * width - len(vectors))).view(rows, width, -1)

        def give(*args: Any, **kwargs: Any) -> Any:
            like = args[0] if args else kwargs["hidden_states"]
            value = filled.to(device=like.device, dtype=like.dtype)
            return (value, *[None] * (parts - 1)) if parts else value

        with acting(dict.fromkeys(_blocks(plain), give)), frozen(plain.model) if grad else nullcontext():
            logits = forward(plain, [token] * rows, grad=grad).logits
    return logits.flatten(0, 1)[: len(vectors)] if logits.ndim == 3 else logits


def at_once(subject: Subject) -> int:
    """Return how many vectors go through the head together: their logits are some 16 million numbers at most."""
    return max(1, NUMBERS_AT_ONCE // max(subject.vocabulary, 1))


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


def _blocks(subject: Subject) -> list[torch.nn.Module]:
    layout = subject.need_layout()
    stack = layout.stacks[main_stack(layout)]
    count = depth(subject.model, layout)
    return list(dict.fromkeys(block_of(subject.model, stack, layer)[0] for layer in range(count)))


def _parts(subject: Subject, token: Row) -> int:
    """Return how long the tuple is that a block gives, 0 where it gives a tensor."""
    key = ("parts of a block", type(subject.model))
    if key not in subject.state.cache:
        seen: list[int] = []

        def see(output: Any) -> Any:
            seen.append(parts_of(output))
            return output

        with torch.no_grad(), hooked([Hook(_blocks(subject)[-1], "output", see)]):
            forward(subject, [token])
        subject.state.cache[key] = seen[-1]
    return int(subject.state.cache[key])
