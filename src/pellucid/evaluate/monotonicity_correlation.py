"""Monotonicity correlation: whether units with larger scores, of either sign, move the target more."""

from __future__ import annotations

import numpy as np

from pellucid.core.metadata import metric
from pellucid.core.params import PromptLike, Replacement, TargetLike
from pellucid.core.results import Evidence, Scores
from pellucid.evaluate._ranking import rank_correlation
from pellucid.evaluate._removal import judged
from pellucid.models.subject import Subject


@metric(
    rows=("EVF-4",),
    paper="arXiv:2007.07584",
    takes="prompt",
    produces="evidence",
    better="higher",
    chance=0,
    needs=("scores",),
    cost="(units+1)*F",
)
def monotonicity_correlation(
    subject: Subject, prompt: PromptLike, scores: Scores, *, target: TargetLike = None,
    contrast: int | str | None = None, replacement: Replacement | None = None,
) -> Evidence:  # fmt: skip
    """Return Spearman's correlation of |score| with (s(x) - s(x without the unit))^2.

    Nguyen & Martinez 2020 (arXiv:2007.07584), with the one removal in the place of their random replacements. Higher is
    better, 1 at best; random scores have 0 on average. Signs do not count, so methods without one can be compared. NaN
    where no removal differs from another. Exact for what it states.

    Args:
        subject: the model, from `pellucid.load`, or a black box.
        prompt: the prompt that was explained.
        scores: one score per unit; the units of the metric are theirs.
        target: what was explained; None means what the model predicts.
        contrast: the alternative to compare with.
        replacement: "delete", "mask", "pad", "mean", "zero" or a token id; None takes "mask" where the model has a
            mask token, else "delete".

    Returns:
        Evidence with the correlation.

    Raises:
        InputError: scores of another prompt, or not one finite number per unit.
    """
    game = judged(subject, prompt, scores, target, contrast, replacement)
    values = game.value(np.concatenate([np.ones((1, game.players), dtype=bool), ~np.eye(game.players, dtype=bool)]))
    found = rank_correlation(np.abs(values[0, 0] - values[1:, 0]), np.abs(scores.values))
    return Evidence(
        "monotonicity correlation",
        f"Sizes of scores and of the changes when each unit alone is removed correlate with {found:.2f} by rank (1 is "
        "best, 0 chance).",
        {"value": found},
    )
