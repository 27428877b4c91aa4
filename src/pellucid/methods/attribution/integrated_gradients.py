"""Integrated gradients: gradients summed along the straight line from a baseline to the input."""

from __future__ import annotations

import numpy as np
import torch

from pellucid.core.metadata import method
from pellucid.core.params import Baseline, Normalise, Positive, PromptLike, Quadrature, Reduce, TargetLike, Unit
from pellucid.core.results import Scores
from pellucid.engine.quadrature import nodes
from pellucid.engine.question import ask, completeness, normalised, per_unit, reduced
from pellucid.models.subject import Subject


@method(
    rows=("FAG-3",),
    paper="arXiv:1703.01365",
    takes="prompt",
    produces="scores",
    axes=("unit",),
    needs=("gradients",),
    cost="(steps+2)*F+steps*targets*B",
)
def integrated_gradients(
    subject: Subject, prompt: PromptLike, *, target: TargetLike = None, contrast: int | str | None = None,
    unit: Unit = "token", baseline: Baseline = "zero", steps: Positive = 32,
    quadrature: Quadrature = "gauss_legendre", reduce: Reduce = "sum", normalise: Normalise = "none",
) -> Scores:  # fmt: skip
    """Share the change of the target between a baseline and the input among the units.

    R_i = sum_d (e - e')_id * integral over a in [0, 1] of df/de_id (e' + a (e - e')); positive raises the target.
    With reduce="sum" and normalise="none" the scores sum to f(e) - f(e') up to the quadrature; the gap is in the
    evidence. Token embeddings move, positions and special tokens stay (Sundararajan et al. 2017, arXiv:1703.01365).

    Args:
        subject: the model, from `pellucid.load`.
        prompt: text, chat or token ids.
        target: what to explain; None means what the model predicts.
        contrast: the alternative to compare with.
        unit: "token", "word", "sentence", "line", "message" or token ranges.
        baseline: "zero", "mean", "mask", "pad", a token id, or embeddings ([dimension] or [positions, dimension]).
        steps: nodes of the quadrature.
        quadrature: "gauss_legendre", "trapezoid", "riemann_left", "riemann_right" or "riemann_middle".
        reduce: how the hidden dimension becomes one number.
        normalise: scale of the scores.

    Returns:
        Scores [unit], or [unit, target] for a target with `each`, with the completeness residual as evidence.
    """
    question = ask(subject, prompt, target=target, contrast=contrast, unit=unit)
    end = question.embeddings()
    start = question.baseline(baseline, end)
    places, weights = nodes(quadrature, steps)
    share = torch.as_tensor(places, dtype=end.dtype, device=end.device).view(-1, 1, 1)
    path = start + share * (end - start)
    if reduce == "sum":
        scores = np.einsum("s,sut->ut", weights, question.slopes(path, end - start))
    else:
        _, gradients = question.gradient(path)
        mean = torch.einsum("s,stpd->tpd", torch.as_tensor(weights).to(gradients), gradients)
        by_position = reduced(mean * (end - start), reduce).T.double().cpu().numpy()
        scores = per_unit(np.ascontiguousarray(by_position), question.units)
    at_end, at_start = question.values(torch.stack([end, start]))
    result = question.answer(normalised(scores, normalise), "Integrated gradients")
    if reduce != "sum" or normalise != "none":
        return result
    return result.with_evidence(
        completeness(scores, at_end - at_start, f"the input and the {_named(baseline)} baseline")
    )


def _named(baseline: Baseline) -> str:
    return baseline if isinstance(baseline, str) else f"token {baseline}" if isinstance(baseline, int) else "given"
