"""GIM: gradients repaired where interactions hide what matters - in the softmax, in norms and in products."""

from __future__ import annotations

import numpy as np
import torch

from pellucid.core.metadata import method
from pellucid.core.params import Normalise, PositiveFloat, PromptLike, Reduce, TargetLike, Unit
from pellucid.core.results import Scores
from pellucid.engine.question import ask, normalised, per_unit, reduced
from pellucid.engine.relevance import relevance
from pellucid.engine.rules import Rules
from pellucid.engine.variants import token_site
from pellucid.models.subject import Subject


@method(
    rows=("N-AT9",),
    paper="arXiv:2505.17630",
    takes="prompt",
    produces="scores",
    axes=("unit",),
    needs=("gradients",),
    cost="3*F+targets*B",
)
def gim(
    subject: Subject, prompt: PromptLike, *, target: TargetLike = None, contrast: int | str | None = None,
    unit: Unit = "token", temperature: PositiveFloat = 2.0, reduce: Reduce = "sum", normalise: Normalise = "none",
) -> Scores:  # fmt: skip
    """Score each unit by gradient x input with a gradient that self-repair in the softmax cannot hide.

    The softmax's gradient is s_T * (g - sum s_T g), with s_T at `temperature` times the temperature; norms keep their
    divisor; each factor of a product (query and key, pattern and value, gate and up) gets half its gradient. Positive
    raises the target. A heuristic repair: the scores sum to nothing in particular (Edin et al. 2025, arXiv:2505.17630).

    Args:
        subject: the model, from `pellucid.load`.
        prompt: text, chat or token ids.
        target: what to explain; None means what the model predicts.
        contrast: the alternative to compare with.
        unit: "token", "word", "sentence", "line", "message" or token ranges.
        temperature: of the softmax in the backward pass; 1 leaves its gradient as it is.
        reduce: how the hidden dimension becomes one number; "sum" keeps the sign.
        normalise: scale of the scores.

    Returns:
        Scores [unit], or [unit, target] for a target with `each`.
    """
    question = ask(subject, prompt, target=target, contrast=contrast, unit=unit)
    rules = Rules(softmax="gradient", temperature=temperature, activations="gradient")
    length = len(question.tokens)
    runs = relevance(question, rules).sites[token_site(question.subject)]  # one per continuation that is fed in
    by_position = torch.stack([(gradient * value)[:, :length] for value, gradient in runs]).sum(0)
    scores = per_unit(np.ascontiguousarray(reduced(by_position, reduce).T.double().cpu().numpy()), question.units)
    return question.answer(normalised(scores, normalise), "GIM")
