"""Input reduction: the shortest input that a beam search finds on which the model still decides the same."""

from __future__ import annotations

import numpy as np

from pellucid.core.metadata import method
from pellucid.core.params import Positive, PromptLike, Replacement, TargetLike, Unit
from pellucid.core.results import Evidence, Scores
from pellucid.engine.decision import decided
from pellucid.engine.question import ask
from pellucid.models.subject import Subject


@method(
    rows=("FAP-3",),
    paper="arXiv:1804.07781",
    takes="prompt",
    produces="scores",
    axes=("unit",),
    needs=("scores",),
    cost="(beam*units*(units+1)/2+units+3)*F",
)
def input_reduction(
    subject: Subject, prompt: PromptLike, *, target: TargetLike = None, contrast: int | str | None = None,
    unit: Unit = "token", replacement: Replacement = "delete", beam: Positive = 3,
) -> Scores:  # fmt: skip
    """Drop the least important unit again and again while the decision stays, and score what is left.

    Importance of i is what the decision margin m (logit(target) - largest other logit, or the logit difference with a
    `contrast`) loses without i. The `beam` best inputs of each length are followed, down to one unit. R_i = m(x') -
    m(x' without i) for the units of the reduced input x', 0 for dropped ones: with m above 0 and two or more units
    left, each of them is needed, R_i >= m(x'). Approximation: a shorter input may exist. The paper ranks units by a
    gradient; here each removal is run. What remains often looks meaningless to people while the model stays sure; the
    evidence holds the margin at every length (Feng et al. 2018, arXiv:1804.07781).

    Args:
        subject: the model, from `pellucid.load`, or a black box.
        prompt: text, chat or token ids.
        target: one token or class; None means what the model predicts. A function stands for its sign.
        contrast: decide against this alternative alone.
        unit: "token", "word", "sentence", "line", "message" or token ranges.
        replacement: "delete" as in the paper, "mask", "pad", "mean", "zero" or a token id.
        beam: inputs kept at each length.

    Returns:
        Scores [unit], 0 for dropped units; the evidence gives the number of kept ones and the margins on the way.

    Raises:
        TargetError: a target of several tokens.
    """
    question = decided(ask(subject, prompt, target=target, contrast=contrast, unit=unit))
    count = len(question.units)
    kept = np.ones((1, count), dtype=bool)
    margins = [float(question.score(kept, replacement)[0, 0])]
    side = 1.0 if margins[0] > 0 else -1.0
    while kept[0].sum() > 1:
        shorter = _one_less(kept)
        scored = question.score(shorter, replacement)[:, 0]
        stays = np.flatnonzero((scored > 0) == (side > 0))
        if not len(stays):
            break
        best = stays[np.argsort(-side * scored[stays], kind="stable")[:beam]]
        kept = shorter[best]
        margins.append(float(scored[best[0]]))
    values = np.zeros((count, 1))
    left = np.flatnonzero(kept[0])
    without = np.repeat(kept[:1], len(left), 0)
    without[np.arange(len(left)), left] = False
    values[left] = margins[-1] - question.score(without, replacement)
    return question.answer(values, "Input reduction", unit="decision margin").with_evidence(_reduced(count, margins))


def _one_less(kept: np.ndarray) -> np.ndarray:
    """Return every different input with one unit less: [inputs, units]."""
    shorter = [np.where(np.arange(kept.shape[1]) == i, False, mask) for mask in kept for i in np.flatnonzero(mask)]
    return np.unique(np.stack(shorter), axis=0)


def _reduced(count: int, margins: list[float]) -> Evidence:
    left = count - len(margins) + 1
    return Evidence(
        "reduction",
        f"The decision stays with {left} of {count} units; its margin goes from {margins[0]:.3g} to {margins[-1]:.3g}.",
        {"kept": float(left), "share": left / count, "before": margins[0], "after": margins[-1]},
        {"x": tuple(float(i) for i in range(len(margins))), "margin": tuple(margins)},
    )
