"""Occlusion (leave-one-out, erasure): what the target loses when one unit is removed."""

from __future__ import annotations

import numpy as np

from pellucid.core.metadata import method
from pellucid.core.params import Normalise, PromptLike, Replacement, TargetLike, Unit
from pellucid.core.results import Scores
from pellucid.engine.question import ask, normalised
from pellucid.engine.variants import default_replacement
from pellucid.models.subject import Subject


@method(
    rows=("FAP-1", "N-AT6", "N-AT10"),
    paper="arXiv:1612.08220",
    takes="prompt",
    produces="scores",
    axes=("unit",),
    needs=("scores",),
    cost="(units+1)*F",
)
def occlusion(
    subject: Subject, prompt: PromptLike, *, target: TargetLike = None, contrast: int | str | None = None,
    unit: Unit = "token", replacement: Replacement | None = None, normalise: Normalise = "none",
) -> Scores:  # fmt: skip
    """Score each unit by the drop of the target when that unit alone is removed.

    R_i = s(x) - s(x without i); positive raises the target. Exact for what it states: the effect of one removal with
    all other units present (Li et al. 2016, arXiv:1612.08220). For a continuation the target is its log-probability, as
    a sum or for each token from the same passes (Miglani et al. 2023), for a contrast log p(target) - log p(foil) (Yin
    & Neubig 2022).

    Args:
        subject: the model, from `pellucid.load`, or a black box.
        prompt: text, chat or token ids.
        target: what to explain; None means what the model predicts.
        contrast: the alternative to compare with.
        unit: "token", "word", "sentence", "line", "message" or token ranges.
        replacement: "delete", "mask", "pad", "mean", "zero" or a token id; None takes "mask" where the model has a
            mask token, else "delete".
        normalise: scale of the scores.

    Returns:
        Scores [unit], or [unit, target] for a target with `each`.
    """
    question = ask(subject, prompt, target=target, contrast=contrast, unit=unit)
    count = len(question.units)
    present = np.concatenate([np.ones((1, count), dtype=bool), ~np.eye(count, dtype=bool)])
    scores = question.score(present, default_replacement(question.subject) if replacement is None else replacement)
    return question.answer(normalised(scores[:1] - scores[1:], normalise), "Occlusion")
