"""VarGrad: how much a gradient changes between noisy copies of the input."""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np

from pellucid.core.metadata import method
from pellucid.core.params import Normalise, PositiveFloat, PromptLike, TargetLike, Unit, at_least
from pellucid.core.results import Scores
from pellucid.engine.noise import noisy_embeddings
from pellucid.engine.question import ask, normalised, per_unit
from pellucid.models.subject import Subject


@method(
    rows=("STD-vargrad",),
    paper="arXiv:1810.03292",
    takes="prompt",
    produces="scores",
    axes=("unit",),
    needs=("gradients",),
    cost="(samples+2)*F+samples*targets*B",
)
def vargrad(
    subject: Subject, prompt: PromptLike, *, target: TargetLike = None, contrast: int | str | None = None,
    unit: Unit = "token", samples: Annotated[int, at_least(2)] = 16, noise: PositiveFloat = 0.1,
    of: Literal["gradient", "gradient_x_input"] = "gradient", normalise: Normalise = "none", seed: int = 0,
) -> Scores:  # fmt: skip
    """Score each unit by the variance of the gradient over embeddings with Gaussian noise.

    R_i = sum_d Var_k g_id(e + eps_k), eps ~ N(0, (noise * range of e)^2) on the units' tokens, where g is the gradient,
    or the gradient times the noisy embedding; unsigned. An unbiased estimate (divided by samples - 1) of how unsteady
    the gradient is around the input (Adebayo et al. 2018, arXiv:1810.03292).

    Args:
        subject: the model, from `pellucid.load`.
        prompt: text, chat or token ids.
        target: what to explain; None means what the model predicts.
        contrast: the alternative to compare with.
        unit: "token", "word", "sentence", "line", "message" or token ranges.
        samples: noisy copies, at least 2.
        noise: standard deviation as a share of the embeddings' range (largest minus smallest entry).
        of: whose variance is taken.
        normalise: scale of the scores.
        seed: of the noise.

    Returns:
        Scores [unit], or [unit, target] for a target with `each`.
    """
    question = ask(subject, prompt, target=target, contrast=contrast, unit=unit)
    points = noisy_embeddings(question, samples, noise, seed)
    _, gradients = question.gradient(points)
    vectors = gradients * points[:, None] if of == "gradient_x_input" else gradients
    by_position = vectors.double().var(0).sum(-1).T.cpu().numpy()
    scores = normalised(per_unit(np.ascontiguousarray(by_position), question.units), normalise)
    return question.answer(scores, "VarGrad", sign="larger means a less steady gradient")
