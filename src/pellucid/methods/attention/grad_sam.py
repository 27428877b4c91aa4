"""Grad-SAM: attention weights times their gradients, where both raise the target, averaged over heads and layers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from pellucid.core.metadata import method
from pellucid.core.params import Normalise, PromptLike, TargetLike, Unit
from pellucid.core.results import Scores
from pellucid.engine.patterns import gradients_at_patterns, pattern_sites
from pellucid.engine.question import ask, normalised, per_unit
from pellucid.models.subject import Subject


@method(
    rows=("ATT-6",),
    paper="arXiv:2204.11073",
    takes="prompt",
    produces="scores",
    axes=("unit",),
    needs=("gradients", "attention"),
    cost="F+targets*B",
)
def grad_sam(
    subject: Subject, prompt: PromptLike, *, target: TargetLike = None, contrast: int | str | None = None,
    unit: Unit = "token", layers: Sequence[int] | None = None, normalise: Normalise = "none",
) -> Scores:  # fmt: skip
    """Score each unit by the attention that it gets and that raises the target.

    H = mean over layers and heads of A * max(0, df/dA), and R_j = mean over queries i of H_ij, summed over the tokens
    of a unit. Never negative: attention that lowers the target counts as nothing. A heuristic: the scores sum to
    nothing in particular (Barkan et al. 2021, arXiv:2204.11073).

    Args:
        subject: the model, from `pellucid.load`; for encoder-decoders the encoder's self-attention is used.
        prompt: text, chat or token ids.
        target: what to explain; None means what the model predicts.
        contrast: the alternative to compare with, one token as the target.
        unit: "token", "word", "sentence", "line", "message" or token ranges.
        layers: the blocks whose attention counts; None means all, as in the paper.
        normalise: scale of the scores.

    Returns:
        Scores [unit], or [unit, target] for a target with `each`.

    Raises:
        InputError: a layer that the model lacks.
        TargetError: a contrast between continuations that are fed in differently.
    """
    question = ask(subject, prompt, target=target, contrast=contrast, unit=unit)
    _, found = gradients_at_patterns(question, pattern_sites(subject, layers))
    maps = [(pattern * gradients.clamp(min=0)).mean(1) for pattern, gradients in found.values()]
    by_key = torch.stack(maps).mean((0, 2))[:, : len(question.tokens)]
    scores = per_unit(np.ascontiguousarray(by_key.T.numpy()), question.units)
    sign = "larger means more attention that raises the target"
    return question.answer(normalised(scores, normalise), "Grad-SAM", sign=sign)
