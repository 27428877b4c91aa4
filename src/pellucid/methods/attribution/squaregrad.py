"""SquareGrad: squared gradients averaged over noisy copies of the input."""

from __future__ import annotations

from typing import Literal

import numpy as np

from pellucid.core.metadata import method
from pellucid.core.params import NonNegativeFloat, Normalise, Positive, PromptLike, TargetLike, Unit
from pellucid.core.results import Scores
from pellucid.engine.coalitions import standard_error
from pellucid.engine.noise import noisy_embeddings
from pellucid.engine.question import ask, normalised, per_unit
from pellucid.models.subject import Subject


@method(
    rows=("STD-squaregrad",),
    paper="arXiv:1806.10758",
    takes="prompt",
    produces="scores",
    axes=("unit",),
    needs=("gradients",),
    cost="(samples+2)*F+samples*targets*B",
)
def squaregrad(
    subject: Subject, prompt: PromptLike, *, target: TargetLike = None, contrast: int | str | None = None,
    unit: Unit = "token", samples: Positive = 16, noise: NonNegativeFloat = 0.1,
    of: Literal["gradient", "gradient_x_input"] = "gradient", normalise: Normalise = "none", seed: int = 0,
) -> Scores:  # fmt: skip
    """Average the squared gradient over embeddings with Gaussian noise.

    R_i = (1/n) sum_k sum_d g_id(e + eps_k)^2, eps ~ N(0, (noise * range of e)^2) on the units' tokens, where g is the
    gradient, or the gradient times the noisy embedding; unsigned. It is the squared mean plus the variance (SmoothGrad
    and VarGrad). Sampled: standard errors are given (Hooker et al. 2019, arXiv:1806.10758).

    Args:
        subject: the model, from `pellucid.load`.
        prompt: text, chat or token ids.
        target: what to explain; None means what the model predicts.
        contrast: the alternative to compare with.
        unit: "token", "word", "sentence", "line", "message" or token ranges.
        samples: noisy copies.
        noise: standard deviation as a share of the embeddings' range (largest minus smallest entry).
        of: what is squared.
        normalise: scale of the scores; standard errors are given for "none".
        seed: of the noise.

    Returns:
        Scores [unit], or [unit, target] for a target with `each`.
    """
    question = ask(subject, prompt, target=target, contrast=contrast, unit=unit)
    points = noisy_embeddings(question, samples, noise, seed)
    _, gradients = question.gradient(points)
    vectors = gradients * points[:, None] if of == "gradient_x_input" else gradients
    by_position = vectors.double().square().sum(-1).transpose(1, 2).cpu().numpy()
    by_unit = np.stack([per_unit(draw, question.units) for draw in by_position])
    error = standard_error(by_unit) if normalise == "none" else None
    scores = normalised(by_unit.mean(0), normalise)
    return question.answer(scores, "SquareGrad", std_error=error, sign="larger moves the target more, either way")
