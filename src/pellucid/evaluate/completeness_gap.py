"""Completeness gap: how far the sum of scores is from what all units together add to the target."""

from __future__ import annotations

import numpy as np

from pellucid.core.metadata import metric
from pellucid.core.params import PromptLike, Replacement, TargetLike
from pellucid.core.results import Evidence, Scores
from pellucid.evaluate._removal import judged
from pellucid.models.subject import Subject


@metric(
    rows=("EVF-6",),
    paper="arXiv:1703.01365",
    takes="prompt",
    produces="evidence",
    better="lower",
    needs=("scores",),
    cost="2*F",
)
def completeness_gap(
    subject: Subject, prompt: PromptLike, scores: Scores, *, target: TargetLike = None,
    contrast: int | str | None = None, replacement: Replacement | None = None,
) -> Evidence:  # fmt: skip
    """Return |sum of scores - (s(x) - s(x without its units))| / |s(x) - s(x without its units)|.

    The completeness axiom (Sundararajan et al. 2017, arXiv:1703.01365; efficiency of Shapley values). Lower is better,
    0 where it holds. There is no chance level: which unit has which score does not count, and scores of 0 have 1. A
    method is held to its own baseline: give its replacement. NaN where the units add nothing. Exact.

    Args:
        subject: the model, from `pellucid.load`, or a black box.
        prompt: the prompt that was explained.
        scores: one score per unit; the units of the metric are theirs.
        target: what was explained; None means what the model predicts.
        contrast: the alternative to compare with.
        replacement: "delete", "mask", "pad", "mean", "zero" or a token id; None takes "mask" where the model has a
            mask token, else "delete".

    Returns:
        Evidence with the relative gap, the sum and the change of the target.

    Raises:
        InputError: scores of another prompt, or not one finite number per unit.
    """
    game = judged(subject, prompt, scores, target, contrast, replacement)
    values = game.value(np.array([[True], [False]]).repeat(game.players, 1))[:, 0]
    change, total = float(values[0] - values[1]), float(np.sum(scores.values))
    found = abs(total - change) / abs(change) if change else float("nan")
    return Evidence(
        "completeness gap",
        f"The scores add up to {total:.3g}, the units to {change:.3g}: a gap of {100 * found:.2g} % (none is best).",
        {"value": found, "sum": total, "change": change},
        ok=bool(found < 0.05),
    )
