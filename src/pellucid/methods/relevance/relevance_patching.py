"""Relevance patching (RelP): activation patching for all places at once, by relevance instead of gradients."""

from __future__ import annotations

import numpy as np
import torch

from pellucid.core.axes import parse_site
from pellucid.core.errors import InputError
from pellucid.core.metadata import method
from pellucid.core.pairs import Pair
from pellucid.core.params import PromptLike, SiteName, TargetLike
from pellucid.core.results import Scores
from pellucid.engine.capture import capture, expand, part_name
from pellucid.engine.question import Question
from pellucid.engine.relevance import relevance
from pellucid.engine.rules import Rules
from pellucid.engine.site_gradients import stacked
from pellucid.engine.targets import resolve
from pellucid.models.subject import Subject


@method(
    rows=("N-AT9",),
    paper="arXiv:2508.21258",
    takes="pair",
    produces="scores",
    axes=("layer", "position"),
    needs=("gradients", "activations"),
    cost="4*F+B",
)
def relevance_patching(
    subject: Subject, clean: PromptLike | Pair, *, corrupt: PromptLike | None = None, target: TargetLike = None,
    contrast: int | str | None = None, site: SiteName = "resid_pre",
) -> Scores:  # fmt: skip
    """Estimate, for every place of a site, the change of the target when its clean value is put into the corrupted run.

    R[l, p] = sum_d (clean - corrupt)_d * c_d, where c is the relevance per unit of activation in the corrupted run:
    activations pass it on, norms keep their divisor, attention patterns are given, products share it in halves.
    Positive means that the place carries what makes the clean answer. Heads and neurons have their own axes, as in
    `activation_patching`, which it approximates with two forward passes and one backward pass. Approximation (Jafari
    et al. 2025, arXiv:2508.21258).

    Args:
        subject: the model, from `pellucid.load`.
        clean: the prompt whose values are taken, or a `Pair` of both prompts.
        corrupt: the prompt that would be patched; as many tokens as `clean`, unless a `Pair` aligns them.
        target: what to explain; None means what the model predicts on `clean`.
        contrast: the alternative to compare with.
        site: the part of a block with positions, such as "resid_pre", "attn.z" or "mlp.post", in every layer.

    Returns:
        Scores [layer, position], [layer, head, position] or [layer, neuron, position].

    Raises:
        InputError: prompts of different length without an alignment, or a site without positions.
        SiteError: a site that the model lacks.
    """
    pair = clean if isinstance(clean, Pair) else Pair(clean, corrupt)
    good, bad = subject.encode(pair.clean), subject.encode(pair.corrupt)
    if pair.alignment is None and len(good) != len(bad):
        raise InputError(
            f"Patching needs prompts of equal length, but clean has {len(good)} tokens and corrupt {len(bad)}; "
            "rephrase one so that tokens line up, or pass Pair(clean, corrupt, alignment)."
        )
    here = [(p, p) for p in range(len(good))] if pair.alignment is None else list(pair.alignment)
    names = expand(subject, part_name(subject, site))
    axes = parse_site(names[0]).axes
    if axes[0] != "position":
        raise InputError(f"The site {site!r} has no positions to patch; use resid_pre, attn.z, mlp.post or the like.")
    readout = resolve(subject, good, target, contrast)
    values = capture(subject, good, names)
    question = Question(subject, bad, subject.units(bad), readout)
    found = relevance(question, Rules(), names).sites
    grid = [_patched(found[name], values[name], here, len(bad), vectors=axes[-1] == "dimension") for name in names]
    own = [axis for axis in ("head", "neuron") if axis in axes]
    return Scores(
        title=f"Relevance patching at {site}",
        values=stacked(grid),
        axes=("layer", *own, "position"),
        unit=readout.unit,
        tokens=bad,
        target=readout.description,
        sign="positive restores the clean answer",
        labels={"layer": tuple(str(i) for i in range(len(names)))},
    )


def _patched(
    found: list[tuple[torch.Tensor, torch.Tensor]], clean: torch.Tensor, here: list[tuple[int, int]], length: int,
    *, vectors: bool,
) -> np.ndarray:  # fmt: skip
    """Return the estimate [..., position] for one layer, summed over the continuations that were fed in."""
    total = torch.zeros(length, *clean.shape[1:], dtype=clean.dtype, device=clean.device)
    source = torch.tensor([p for p, _ in here], device=clean.device)
    place = torch.tensor([p for _, p in here], device=clean.device)
    for value, gradient in found:
        total[place] += (clean[source] - value[place]) * gradient.sum(0)[place]
    total = total.sum(-1) if vectors else total
    return np.moveaxis(total.double().cpu().numpy(), 0, -1)
