"""Polarity violation: how often the sign of a score is not the sign of what its unit does to the target."""

from __future__ import annotations

import numpy as np

from pellucid.core.metadata import metric
from pellucid.core.params import PromptLike, Replacement, TargetLike
from pellucid.core.results import Evidence, Scores
from pellucid.evaluate._removal import judged
from pellucid.models.subject import Subject


@metric(
    rows=("EVF-7",),
    paper="arXiv:2201.12114",
    takes="prompt",
    produces="evidence",
    better="lower",
    chance=0.5,
    needs=("scores",),
    cost="(units+1)*F",
)
def polarity_violation(
    subject: Subject, prompt: PromptLike, scores: Scores, *, target: TargetLike = None,
    contrast: int | str | None = None, replacement: Replacement | None = None,
    tolerance: float = 1e-6,
) -> Evidence:  # fmt: skip
    """Return the share of units whose score has another sign than the fall of the target when the unit is removed.

    A unit counts where both are further from 0 than `tolerance` of the largest; `top` is 1 where the unit of the
    largest |score| violates, which is the paper's test of one prompt (Liu et al. 2022, arXiv:2201.12114). Lower is
    better; random signs have 0.5. Methods whose scores are never negative violate wherever a unit lowers the target.
    NaN where no unit counts. Exact for what it states.

    Args:
        subject: the model, from `pellucid.load`, or a black box.
        prompt: the prompt that was explained.
        scores: one score per unit; the units of the metric are theirs.
        target: what was explained; None means what the model predicts.
        contrast: the alternative to compare with.
        replacement: "delete", "mask", "pad", "mean", "zero" or a token id; None takes "mask" where the model has a
            mask token, else "delete".
        tolerance: share of the largest score, and of the largest fall, below which a value counts as 0.

    Returns:
        Evidence with the share, and with `top`.

    Raises:
        InputError: scores of another prompt, or not one finite number per unit.
    """
    game = judged(subject, prompt, scores, target, contrast, replacement)
    values = game.value(np.concatenate([np.ones((1, game.players), dtype=bool), ~np.eye(game.players, dtype=bool)]))
    falls, given = values[0, 0] - values[1:, 0], np.asarray(scores.values, dtype=np.float64)
    counted = np.ones(len(given), dtype=bool)
    for one in (falls, given):
        counted &= np.abs(one) > tolerance * np.abs(one).max()
    wrong = counted & (np.sign(falls) != np.sign(given))
    found = float(wrong.sum() / counted.sum()) if counted.any() else float("nan")
    largest = int(np.argmax(np.abs(given)))
    top = float(wrong[largest]) if counted[largest] else float("nan")
    return Evidence(
        "polarity violation",
        f"{int(wrong.sum())} of {int(counted.sum())} scores have another sign than the effect of their unit (none is "
        "best, half is chance).",
        {"value": found, "top": top, "counted": float(counted.sum())},
    )
