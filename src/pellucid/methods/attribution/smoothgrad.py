"""SmoothGrad: a gradient attribution averaged over noisy copies of the embeddings."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch

from pellucid.core.metadata import method
from pellucid.core.params import NonNegativeFloat, Positive, PromptLike, Reduce, TargetLike, Unit
from pellucid.core.results import Scores
from pellucid.engine.coalitions import standard_error
from pellucid.engine.question import ask, per_unit, reduced
from pellucid.models.subject import Subject


@method(
    rows=("STD-smoothgrad",),
    paper="arXiv:1706.03825",
    takes="prompt",
    produces="scores",
    axes=("unit",),
    needs=("gradients",),
    cost="(samples+1)*F+samples*targets*B",
)
def smoothgrad(
    subject: Subject, prompt: PromptLike, *, target: TargetLike = None, contrast: int | str | None = None,
    unit: Unit = "token", samples: Positive = 16, noise: NonNegativeFloat = 0.1,
    of: Literal["gradient", "gradient_x_input"] = "gradient_x_input", reduce: Reduce = "sum", seed: int = 0,
) -> Scores:  # fmt: skip
    """Average gradient or gradient x input over embeddings with Gaussian noise.

    R_i = (1/n) sum_k g_i(e + eps_k), eps ~ N(0, (noise * range of e)^2) on the units' tokens, where g is the
    gradient, or the gradient times the noisy embedding. With noise=0 it equals the plain attribution. Sampled:
    standard errors are given (Smilkov et al. 2017, arXiv:1706.03825).

    Args:
        subject: the model, from `pellucid.load`.
        prompt: text, chat or token ids.
        target: what to explain; None means what the model predicts.
        contrast: the alternative to compare with.
        unit: "token", "word", "sentence", "line", "message" or token ranges.
        samples: noisy copies.
        noise: standard deviation as a share of the embeddings' range (largest minus smallest entry).
        of: what is averaged.
        reduce: how the hidden dimension becomes one number.
        seed: of the noise.

    Returns:
        Scores [unit], or [unit, target] for a target with `each`.
    """
    question = ask(subject, prompt, target=target, contrast=contrast, unit=unit)
    embeddings = question.embeddings()
    generator = torch.Generator().manual_seed(seed)
    draws = torch.randn((samples, *embeddings.shape), generator=generator).to(embeddings)
    still = torch.ones(len(embeddings), dtype=torch.bool)
    still[list(question.units.positions())] = False
    draws[:, still] = 0
    points = embeddings + noise * (embeddings.max() - embeddings.min()) * draws
    _, gradients = question.gradient(points)
    vectors = gradients * points[:, None] if of == "gradient_x_input" else gradients
    by_position = reduced(vectors, reduce).transpose(1, 2).double().cpu().numpy()
    by_unit = np.stack([per_unit(draw, question.units) for draw in by_position])
    title = "SmoothGrad of gradient x input" if of == "gradient_x_input" else "SmoothGrad"
    return question.answer(by_unit.mean(0), title, std_error=standard_error(by_unit))
