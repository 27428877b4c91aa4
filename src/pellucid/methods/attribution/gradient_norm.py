"""Gradient norm: how fast the target changes when a token's embedding moves."""

from __future__ import annotations

import numpy as np

from pellucid.core.metadata import method
from pellucid.core.params import Normalise, PromptLike, Reduce, TargetLike, Unit
from pellucid.core.results import Scores
from pellucid.engine.question import ask, normalised, per_unit, reduced
from pellucid.models.subject import Subject


@method(
    rows=("FAG-1",),
    paper="arXiv:1312.6034",
    takes="prompt",
    produces="scores",
    axes=("unit",),
    needs=("gradients",),
    cost="2*F+targets*B",
)
def gradient_norm(
    subject: Subject, prompt: PromptLike, *, target: TargetLike = None, contrast: int | str | None = None,
    unit: Unit = "token", reduce: Reduce = "l2", normalise: Normalise = "none",
) -> Scores:  # fmt: skip
    """Score each unit by the norm of the target's gradient with respect to its token embeddings.

    R_i = ||df/de_i||, summed over the tokens of a unit; unsigned. Exact (automatic differentiation), but a local
    quantity: it says nothing about the size of the change (Simonyan et al. 2013, arXiv:1312.6034; Li et al. 2016).

    Args:
        subject: the model, from `pellucid.load`.
        prompt: text, chat or token ids.
        target: what to explain; None means what the model predicts.
        contrast: the alternative to compare with.
        unit: "token", "word", "sentence", "line", "message" or token ranges.
        reduce: norm over the hidden dimension, "l2" or "l1".
        normalise: scale of the scores.

    Returns:
        Scores [unit], or [unit, target] for a target with `each`.
    """
    question = ask(subject, prompt, target=target, contrast=contrast, unit=unit)
    _, gradients = question.gradient(question.embeddings()[None])
    by_position = reduced(gradients[0], reduce).T.double().cpu().numpy()
    values = normalised(per_unit(np.ascontiguousarray(by_position), question.units), normalise)
    return question.answer(values, "Gradient norm", sign="larger moves the target more, in either direction")
