"""Activation addition (ActAdd): the difference of two prompts' activations, added to the first tokens of any prompt."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from pellucid.core.errors import InputError
from pellucid.core.metadata import method
from pellucid.core.params import PromptLike, SiteName
from pellucid.core.results import Evidence, Learned
from pellucid.engine.capture import capture, expand, part_name
from pellucid.models.subject import Subject


@method(
    rows=("N-ST1",),
    paper="arXiv:2308.10248",
    takes="labels",
    produces="learned",
    needs=("activations",),
    cost="2*F",
)
def activation_addition(
    subject: Subject, positive: PromptLike, negative: PromptLike, *, site: SiteName = "resid_pre",
    layers: Sequence[int] | None = None, layer: int | None = None,
) -> Learned:  # fmt: skip
    """Read the difference of two prompts' activations, position by position, as what to add to other prompts.

    d_l[p] = h_l(positive)[p] - h_l(negative)[p] for every position: `Steering` adds coefficient times d_l[p]
    at position p, counted from the front, in one layer (Turner et al. 2023, arXiv:2308.10248). Exact. The paper pads
    the shorter prompt with spaces; give prompts of equal length, or pad them so.

    Args:
        subject: the model, from `pellucid.load`.
        positive: the prompt to steer towards, such as "Love".
        negative: the prompt to steer away from, such as "Hate".
        site: a part of the residual stream.
        layers: blocks to read; None means all.
        layer: the block that steers unless told otherwise; None takes the middle one.

    Returns:
        Learned with `directions` [layer, position, dimension], unit vectors (zero where both prompts agree), and
        `scales` [layer, position], their lengths, so that the coefficient 1 adds the difference itself.

    Raises:
        InputError: prompts of different length, or a layer that is not read.
        SiteError: a site that the model lacks.
    """
    tokens = [subject.encode(prompt) for prompt in (positive, negative)]
    if len(tokens[0]) != len(tokens[1]):
        raise InputError(
            f"activation_addition needs prompts of equal length, but positive has {len(tokens[0])} tokens and negative "
            f"{len(tokens[1])}; pad the shorter one with spaces."
        )
    names = expand(subject, part_name(subject, site))
    chosen = list(range(len(names))) if layers is None else [int(at) % len(names) for at in layers]
    first = chosen[len(chosen) // 2] if layer is None else int(layer) % len(names)
    if first not in chosen:
        raise InputError(f"activation_addition was asked to steer in layer {first}, but reads {chosen}; read it too.")
    one, other = (capture(subject, prompt, [names[at] for at in chosen]) for prompt in tokens)
    gaps = np.stack([_wide(one[names[at]]) - _wide(other[names[at]]) for at in chosen])
    lengths = np.linalg.norm(gaps, axis=-1)
    sizes = np.stack([np.linalg.norm(_wide(other[names[at]]), axis=-1) for at in chosen])
    return Learned(
        title="Activation addition",
        tensors={"directions": gaps / np.where(lengths > 0, lengths, 1.0)[..., None], "scales": lengths},
        apply="direction",
        site=site,
        settings={"layers": chosen, "layer": first, "positions": list(range(len(tokens[0])))},
        evidence=(_size(lengths[chosen.index(first)], sizes[chosen.index(first)], first),),
    )


def _wide(value: Any) -> np.ndarray:
    found: np.ndarray = (value if str(value.dtype) == "torch.float64" else value.float()).cpu().numpy()
    return found


def _size(lengths: np.ndarray, sizes: np.ndarray, layer: int) -> Evidence:
    share = float((lengths / np.maximum(sizes, 1e-30)).mean())
    return Evidence(
        "size of the addition",
        f"In layer {layer} the coefficient 1 adds {100 * share:.0f} % of the stream's own norm, on average over "
        f"{len(lengths)} positions; {int((lengths == 0).sum())} of them have no difference.",
        {"share": share, "positions": float(len(lengths))},
    )
