"""Head importance: how fast the target would change if an attention head were turned down."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from pellucid.core.errors import SiteError
from pellucid.core.metadata import method
from pellucid.core.params import PromptLike, SiteName, TargetLike
from pellucid.core.results import Scores
from pellucid.engine.capture import expand, part_name
from pellucid.engine.coalitions import standard_error
from pellucid.engine.question import Question
from pellucid.engine.several import ask_several
from pellucid.engine.site_gradients import gradients_at, stacked, summed
from pellucid.models.subject import Subject


@method(
    rows=("ATT-18",),
    paper="arXiv:1905.10650",
    takes="prompt",
    produces="scores",
    axes=("layer", "head"),
    needs=("gradients", "activations"),
    cost="3*F+targets*B",
)
def head_importance(
    subject: Subject, prompt: PromptLike, *, target: TargetLike = None, contrast: int | str | None = None,
    others: Sequence[Any] = (), other_targets: Sequence[Any] | None = None, site: SiteName = "attn.z",
    layerwise: bool = False,
) -> Scores:  # fmt: skip
    """Score each attention head by the size of the target's derivative with respect to a gate on the head.

    I_h = E over prompts of |A_h . df/dA_h|, where A_h is the head's output at all positions; this is |df/dg| for a
    factor g = 1 on the head. Unsigned: larger means that turning the head down changes the target faster. Exact as a
    derivative, an approximation of the effect of removal; for the paper's loss take a target with
    measure="log_prob" (Michel et al. 2019, arXiv:1905.10650).

    Args:
        subject: the model, from `pellucid.load`.
        prompt: text, chat or token ids.
        target: what to explain; None means what the model predicts. A target with `each` counts as its sum.
        contrast: the alternative to compare with.
        others: further prompts to average over; each costs as much as the first.
        other_targets: a target for each of the others; None takes `target`.
        site: where heads are read: "attn.z", "cross_attn.z" or a name such as "decoder.blocks.*.attn.z".
        layerwise: divide the scores of each layer by their l2 norm, as the paper does before pruning.

    Returns:
        Scores [layer, head], with standard errors over prompts where there are several.

    Raises:
        SiteError: a site without heads, or one that the model lacks.
    """
    asked = ask_several(subject, prompt, others, target=target, contrast=contrast, other_targets=other_targets)
    draws = np.stack([np.abs(_derivative(question, site)) for question in asked])
    values, error = draws.mean(0), standard_error(draws) if len(draws) > 1 else None
    if layerwise:
        size = np.sqrt((values**2).sum(1, keepdims=True))
        scale = np.divide(1.0, size, out=np.zeros_like(size), where=size > 0)
        values, error = values * scale, None
    first = asked[0]
    return Scores(
        title=f"Head importance over {len(asked)} prompt{'s' if len(asked) > 1 else ''}",
        values=values,
        axes=("layer", "head"),
        unit=f"|change of {first.readout.unit}| per gate",
        sign="larger means that the target depends more on the head",
        std_error=error,
        tokens=first.tokens,
        target=first.readout.description,
    )


def _derivative(question: Question, site: str) -> np.ndarray:
    """Return the derivative of the target with respect to a factor on each head: [layer, head]."""
    names = expand(question.subject, part_name(question.subject, site))
    _, found = gradients_at(question.subject, question.tokens, question.readout, question.embeddings()[None], names)
    rows = []
    for name in names:
        axis, row = summed((found[name].gradients.sum(1) * found[name].values)[0], name)
        if axis != "head":
            raise SiteError(f"The site {site!r} has no heads, only {axis}s; use 'attn.z'.")
        rows.append(row.numpy())
    return stacked(rows)
