"""Gradient x input: the target's first-order change if a token's embedding went to zero, with its sign turned."""

from __future__ import annotations

import numpy as np

from pellucid.core.metadata import method
from pellucid.core.params import Normalise, PromptLike, Reduce, TargetLike, Unit
from pellucid.core.results import Scores
from pellucid.engine.question import ask, normalised, per_unit, reduced
from pellucid.models.subject import Subject


@method(
    rows=("FAG-2", "N-AT10"),
    paper="arXiv:1605.01713",
    takes="prompt",
    produces="scores",
    axes=("unit",),
    needs=("gradients",),
    cost="F+targets*B",
)
def gradient_x_input(
    subject: Subject, prompt: PromptLike, *, target: TargetLike = None, contrast: int | str | None = None,
    unit: Unit = "token", reduce: Reduce = "sum", normalise: Normalise = "none",
) -> Scores:  # fmt: skip
    """Score each unit by the product of its token embeddings with the target's gradient.

    R_i = sum_d e_id * df/de_id; positive raises the target. Approximation of removing the unit (baseline zero) to first
    order; exact for a model linear in its embeddings (Shrikumar et al. 2016, arXiv:1605.01713; Kindermans et al. 2017).
    With a contrast it explains why this rather than that (Yin & Neubig 2022).

    Args:
        subject: the model, from `pellucid.load`.
        prompt: text, chat or token ids.
        target: what to explain; None means what the model predicts.
        contrast: the alternative to compare with.
        unit: "token", "word", "sentence", "line", "message" or token ranges.
        reduce: how the hidden dimension becomes one number; "sum" keeps the sign.
        normalise: scale of the scores.

    Returns:
        Scores [unit], or [unit, target] for a target with `each`.
    """
    question = ask(subject, prompt, target=target, contrast=contrast, unit=unit)
    embeddings = question.embeddings()
    if reduce == "sum":
        scores = question.slopes(embeddings[None], embeddings)[0]
    else:
        _, gradients = question.gradient(embeddings[None])
        by_position = reduced(gradients[0] * embeddings, reduce).T.double().cpu().numpy()
        scores = per_unit(np.ascontiguousarray(by_position), question.units)
    return question.answer(normalised(scores, normalise), "Gradient x input")
