"""Conicity: how much the vectors that attention chooses among all point the same way."""

from __future__ import annotations

import numpy as np
import torch

from pellucid.core.axes import parse_site
from pellucid.core.errors import SiteError
from pellucid.core.metadata import method
from pellucid.core.params import PromptLike, SiteName, TargetLike
from pellucid.core.results import Scores
from pellucid.engine.capture import capture, expand, part_name
from pellucid.engine.question import ask
from pellucid.engine.site_gradients import stacked
from pellucid.models.subject import Subject


@method(
    rows=("ATT-14",),
    paper="arXiv:2004.14243",
    takes="prompt",
    produces="scores",
    axes=("layer",),
    needs=("activations",),
    cost="2*F",
)
def conicity(
    subject: Subject, prompt: PromptLike, *, target: TargetLike = None, site: SiteName = "resid_pre"
) -> Scores:  # fmt: skip
    """Measure how alike the vectors at all positions of the prompt are, in every layer.

    conicity = mean over positions of cos(h_i, mean of h): 1 where all vectors point the same way, so that attention
    weights over them can be exchanged and say little, and about 1 / sqrt(positions) where they are orthogonal. Exact;
    does not depend on the target. Training models for low conicity or with orthogonal states, the paper's remedy, is
    left out: it makes another model and does not explain this one (Mohankumar et al. 2020, arXiv:2004.14243).

    Args:
        subject: the model, from `pellucid.load`; for encoder-decoders the encoder is read.
        prompt: text, chat or token ids.
        target: only names the target in the result.
        site: the part of a block, such as "resid_pre" (what attention is given) or "attn.v" (what it mixes).

    Returns:
        Scores [layer], or [layer, head] for sites with heads (key/value heads for "attn.k" and "attn.v").

    Raises:
        SiteError: a site that the model lacks, or one without positions.
    """
    question = ask(subject, prompt, target=target)
    names = expand(subject, part_name(subject, site))
    axes = parse_site(names[0]).axes
    if axes[0] != "position":
        raise SiteError(f"Conicity compares positions, but {names[0]!r} has the axes {list(axes)}; use resid_pre.")
    captured = capture(subject, question.tokens, names)
    rows = [_mean_cosine(value.double().cpu()).numpy() for value in captured.values()]
    return Scores(
        title=f"Conicity at {site}",
        values=stacked(rows) if "head" in axes else np.stack(rows),
        axes=("layer", "head") if "head" in axes else ("layer",),
        unit="mean cosine",
        sign="larger means the vectors are more alike, so that attention weights say less",
        tokens=question.tokens,
        target=question.readout.description,
    )


def _mean_cosine(vectors: torch.Tensor) -> torch.Tensor:
    """Return the mean cosine of vectors [position, ..., dimension] with their mean: [...]."""
    return torch.nn.functional.cosine_similarity(vectors, vectors.mean(0, keepdim=True), dim=-1).mean(0)
