"""Split integrated gradients: only the part of the path on which the target still moves."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch

from pellucid.core.metadata import method
from pellucid.core.params import Baseline, Fraction, Normalise, Positive, PromptLike, TargetLike, Unit
from pellucid.core.results import Evidence, Scores
from pellucid.engine.quadrature import nodes
from pellucid.engine.question import ask, completeness, normalised
from pellucid.models.subject import Subject


@method(
    rows=("FAG-4",),
    paper="arXiv:2010.12697",
    takes="prompt",
    produces="scores",
    axes=("unit",),
    needs=("gradients",),
    cost="(steps+3+targets*(steps+2))*F+targets*steps*targets*B",
)
def split_integrated_gradients(
    subject: Subject, prompt: PromptLike, *, target: TargetLike = None, contrast: int | str | None = None,
    unit: Unit = "token", part: Literal["left", "right"] = "left", share: Fraction = 0.9,
    baseline: Baseline = "zero", steps: Positive = 32, normalise: Normalise = "none",
) -> Scores:  # fmt: skip
    """Share the change of the target among the units on the part of the path before (or behind) its saturation.

    R_i = sum_d (e - e')_id * integral over a in [0, a*] of df/de_id (e' + a (e - e')), where a* is the first a at which
    the target has made `share` of its way from f(e') to f(e) (the paper's f(a*) = share * f(e) where f(e') = 0; the way
    is defined for logits of any sign). Positive raises the target. The left part sums to f(a*) - f(e'), the right to
    f(e) - f(a*), and both together to integrated gradients, up to the quadrature (Miglani et al. 2020,
    arXiv:2010.12697).

    Args:
        subject: the model, from `pellucid.load`.
        prompt: text, chat or token ids.
        target: what to explain; None means what the model predicts.
        contrast: the alternative to compare with.
        unit: "token", "word", "sentence", "line", "message" or token ranges.
        part: "left" of a*, where the target moves, or "right" of it, where it is saturated.
        share: of the target's way that is the left part's.
        baseline: "zero", "mean", "mask", "pad", a token id, or embeddings ([dimension] or [positions, dimension]).
        steps: intervals in which a* is looked for, and Gauss-Legendre nodes of the part.
        normalise: scale of the scores.

    Returns:
        Scores [unit], or [unit, target] for a target with `each`, with a* and the completeness residual as evidence.
    """
    question = ask(subject, prompt, target=target, contrast=contrast, unit=unit)
    end = question.embeddings()
    start = question.baseline(baseline, end)

    def path(places: np.ndarray) -> torch.Tensor:
        return start + torch.as_tensor(places).to(end).view(-1, 1, 1) * (end - start)

    places = np.linspace(0, 1, steps + 1)
    way = question.values(path(places))
    inner, weights = nodes("gauss_legendre", steps)
    columns, changes, splits = [], [], []
    for column in range(question.readout.size):
        split = _first(places, way[:, column], share)
        low, high = (0.0, split) if part == "left" else (split, 1.0)
        slopes = question.slopes(path(low + (high - low) * inner), end - start)[..., column]
        columns.append((high - low) * weights @ slopes)
        ends = question.values(path(np.array([low, high])))[:, column]
        changes.append(ends[1] - ends[0])
        splits.append(split)
    scores = np.stack(columns, 1)
    result = question.answer(normalised(scores, normalise), f"Integrated gradients, {part} of {splits[0]:.2g}")
    result = result.with_evidence(_where(splits, share))
    if normalise != "none":
        return result
    return result.with_evidence(completeness(scores, np.array(changes), f"the ends of the {part} part"))


def _first(places: np.ndarray, way: np.ndarray, share: float) -> float:
    """Return the first place at which `share` of the way is made, between two places by a straight line."""
    total = way[-1] - way[0]
    made = (way - way[0]) / total if total != 0 else places
    index = int(np.argmax(made >= share - 1e-12))
    if index == 0:
        return float(places[0])
    before, after = made[index - 1], made[index]
    return float(places[index - 1] + (share - before) / (after - before) * (places[index] - places[index - 1]))


def _where(splits: list[float], share: float) -> Evidence:
    return Evidence(
        "saturation",
        f"The target has made {100 * share:.3g} % of its way at {splits[0]:.3g} of the path.",
        {"split": splits[0], "share": share},
    )
