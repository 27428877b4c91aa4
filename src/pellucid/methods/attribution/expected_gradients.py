"""Expected gradients (GradientSHAP): integrated gradients over many baselines, one random point on each path."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from pellucid.core.metadata import method
from pellucid.core.params import NonNegativeFloat, Normalise, Positive, PromptLike, Reduce, TargetLike, Unit
from pellucid.core.results import Evidence, Scores
from pellucid.engine.coalitions import standard_error
from pellucid.engine.noise import noisy_embeddings
from pellucid.engine.question import Question, ask, normalised, per_unit, reduced
from pellucid.models.subject import Subject


@method(
    rows=("STD-gradientshap",),
    paper="arXiv:1906.10670",
    takes="prompt",
    produces="scores",
    axes=("unit",),
    needs=("gradients",),
    cost="(3*samples+4)*F+samples*targets*B",
)
def expected_gradients(
    subject: Subject, prompt: PromptLike, *, target: TargetLike = None, contrast: int | str | None = None,
    unit: Unit = "token", background: Sequence[Any] | None = None, samples: Positive = 32,
    noise: NonNegativeFloat = 0.0, reduce: Reduce = "sum", normalise: Normalise = "none", seed: int = 0,
) -> Scores:  # fmt: skip
    """Share the change of the target between random tokens and the input among the units.

    R_i = E over baselines e' and a ~ U(0, 1) of sum_d (e - e')_id * df/de_id (e' + a (e - e')); a baseline draws every
    token of the units from the background. Positive raises the target. Sampled, one a in each of `samples` equal
    intervals, with standard errors (that leave this out, so they are upper bounds); with reduce="sum" the scores sum to
    f(e) - E f(e') in expectation, and the gap is in the evidence (Erion et al. 2021, arXiv:1906.10670; Lundberg & Lee
    2017).

    Args:
        subject: the model, from `pellucid.load`.
        prompt: text, chat or token ids.
        target: what to explain; None means what the model predicts.
        contrast: the alternative to compare with.
        unit: "token", "word", "sentence", "line", "message" or token ranges.
        background: prompts whose tokens are drawn; None means every token of the vocabulary.
        samples: random baselines and points.
        noise: standard deviation of noise on the input, as a share of the embeddings' range.
        reduce: how the hidden dimension becomes one number.
        normalise: scale of the scores; standard errors are given for "none".
        seed: of baselines, points and noise.

    Returns:
        Scores [unit], or [unit, target] for a target with `each`.
    """
    question = ask(subject, prompt, target=target, contrast=contrast, unit=unit)
    generator = torch.Generator().manual_seed(seed)
    start = _baselines(question, background, samples, generator)
    end = noisy_embeddings(question, samples, noise, seed)
    share = (torch.arange(samples) + torch.rand(samples, generator=generator)) / samples
    share = share[torch.randperm(samples, generator=generator)].to(end).view(-1, 1, 1)
    _, gradients = question.gradient(start + share * (end - start))
    by_position = reduced(gradients * (end - start)[:, None], reduce).transpose(1, 2).double().cpu().numpy()
    by_unit = np.stack([per_unit(draw, question.units) for draw in by_position])
    error = standard_error(by_unit) if normalise == "none" else None
    result = question.answer(normalised(by_unit.mean(0), normalise), "Expected gradients", std_error=error)
    if reduce != "sum" or normalise != "none":
        return result
    values = question.values(torch.cat([end, start]))
    return result.with_evidence(_gap(by_unit.sum(1), values[:samples] - values[samples:]))


def _gap(sums: np.ndarray, changes: np.ndarray) -> Evidence:
    """Compare what the scores of each draw sum to with its change of the target, [samples, targets] both."""
    gaps = sums - changes
    mean = np.abs(gaps.mean(0))
    error = gaps.std(0, ddof=1) / len(gaps) ** 0.5 if len(gaps) > 1 else np.full_like(mean, np.inf)
    worst = int(np.argmax(mean))
    return Evidence(
        "completeness",
        f"The scores add up to the change between the random baselines and the input within {mean[worst]:.2g}, where "
        f"chance alone gives {error[worst]:.2g}.",
        {"residual": float(mean[worst]), "difference": float(changes.mean(0)[worst])},
        ok=bool((mean <= 4 * error + 1e-6).all()),
    )


def _baselines(
    question: Question, background: Sequence[Any] | None, samples: int, generator: torch.Generator
) -> torch.Tensor:
    """Return embeddings [samples, positions, dimension] in which the units' tokens are drawn from the background."""
    subject = question.subject
    if background is None:
        pool = torch.arange(subject.vocabulary)
    else:
        pool = torch.tensor([i for prompt in background for i in subject.encode(prompt).ids])
    positions = list(question.units.positions())
    drawn = pool[torch.randint(len(pool), (samples, len(positions)), generator=generator)]
    points = question.embeddings().repeat(samples, 1, 1)
    with torch.no_grad():
        vectors = subject.model.get_input_embeddings()(drawn.to(subject.input_device))
    points[:, positions] = vectors.to(points)
    return points
