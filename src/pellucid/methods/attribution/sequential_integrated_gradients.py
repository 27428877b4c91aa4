"""Sequential integrated gradients: each unit moves from the baseline to itself while all others stay where they are."""

from __future__ import annotations

import numpy as np
import torch

from pellucid.core.metadata import method
from pellucid.core.params import Baseline, Normalise, Positive, PromptLike, Quadrature, TargetLike, Unit
from pellucid.core.results import Scores
from pellucid.engine.quadrature import nodes
from pellucid.engine.question import ask, normalised
from pellucid.models.subject import Subject


@method(
    rows=("FAG-6",),
    paper="arXiv:2305.15853",
    takes="prompt",
    produces="scores",
    axes=("unit",),
    needs=("gradients",),
    cost="(units*steps+3)*F+units*steps*targets*B",
)
def sequential_integrated_gradients(
    subject: Subject, prompt: PromptLike, *, target: TargetLike = None, contrast: int | str | None = None,
    unit: Unit = "token", baseline: Baseline = "zero", steps: Positive = 16, quadrature: Quadrature = "gauss_legendre",
    normalise: Normalise = "l2",
) -> Scores:  # fmt: skip
    """Score each unit by the change of the target while that unit alone moves from the baseline to the input.

    R_i = sum_d (e_i - e'_i)_d * integral over a of df/de_id with e_i at e'_i + a (e_i - e'_i) and every other unit at
    its own embedding; positive raises the target. With normalise="none" each score equals f(x) - f(x with i at the
    baseline) up to the quadrature. The paper's scores are normalised over units (Enguehard 2023, arXiv:2305.15853).

    Args:
        subject: the model, from `pellucid.load`.
        prompt: text, chat or token ids.
        target: what to explain; None means what the model predicts.
        contrast: the alternative to compare with.
        unit: "token", "word", "sentence", "line", "message" or token ranges.
        baseline: "zero", "mask" (the paper's, for models with a mask token), "mean", "pad", a token id, or embeddings.
        steps: nodes of the quadrature, per unit.
        quadrature: "gauss_legendre", "trapezoid", "riemann_left", "riemann_right" or "riemann_middle".
        normalise: scale of the scores.

    Returns:
        Scores [unit], or [unit, target] for a target with `each`.
    """
    question = ask(subject, prompt, target=target, contrast=contrast, unit=unit)
    end = question.embeddings()
    start = question.baseline(baseline, end)
    places, weights = nodes(quadrature, steps)
    share = torch.as_tensor(places, dtype=end.dtype, device=end.device).view(-1, 1, 1)
    scores = []
    for first, last in question.units.spans:
        points = end.repeat(steps, 1, 1)
        points[:, first:last] = start[first:last] + share * (end - start)[first:last]
        _, gradients = question.gradient(points)
        mean = torch.einsum("s,stpd->tpd", torch.as_tensor(weights).to(gradients), gradients)
        scores.append((mean * (end - start))[:, first:last].sum((1, 2)))
    values = torch.stack(scores).double().cpu().numpy()
    return question.answer(normalised(np.ascontiguousarray(values), normalise), "Sequential integrated gradients")
