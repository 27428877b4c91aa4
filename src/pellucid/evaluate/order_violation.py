"""Order violation: how often two units are ranked the other way round than by their effects."""

from __future__ import annotations

import numpy as np

from pellucid.core.metadata import metric
from pellucid.core.params import Fraction, PromptLike, Replacement, TargetLike
from pellucid.core.results import Evidence, Scores
from pellucid.evaluate._ranking import settled
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
def order_violation(
    subject: Subject, prompt: PromptLike, scores: Scores, *, target: TargetLike = None,
    contrast: int | str | None = None, replacement: Replacement | None = None,
    resolution: Fraction = 0.001,
) -> Evidence:  # fmt: skip
    """Return the share of pairs of units that are ranked the other way round than their removals.

    A pair counts where the falls of the target differ; it is violated where the unit with the smaller fall has the
    higher score, half violated where the scores are equal. The order counterpart of the polarity test of Liu et al.
    2022 (arXiv:2201.12114). Lower is better; random scores have 0.5. NaN where all falls are equal. Exact for what it
    states.

    Args:
        subject: the model, from `pellucid.load`, or a black box.
        prompt: the prompt that was explained.
        scores: one score per unit; the units of the metric are theirs.
        target: what was explained; None means what the model predicts.
        contrast: the alternative to compare with.
        replacement: "delete", "mask", "pad", "mean", "zero" or a token id; None takes "mask" where the model has a
            mask token, else "delete".
        resolution: values closer than this share of the largest count as equal.

    Returns:
        Evidence with the share, and the number of pairs.

    Raises:
        InputError: scores of another prompt, or not one finite number per unit.
    """
    game = judged(subject, prompt, scores, target, contrast, replacement)
    values = game.value(np.concatenate([np.ones((1, game.players), dtype=bool), ~np.eye(game.players, dtype=bool)]))
    falls, given = settled(values[0, 0] - values[1:, 0], resolution), settled(scores.values, resolution)
    larger = falls[:, None] > falls[None]
    wrong = (given[:, None] < given[None]) + 0.5 * (given[:, None] == given[None])
    pairs = int(larger.sum())
    found = float(wrong[larger].mean()) if pairs else float("nan")
    return Evidence(
        "order violation",
        f"{100 * found:.0f} % of {pairs} pairs of units are ranked the other way round than their effects (none is "
        "best, half is chance).",
        {"value": found, "pairs": float(pairs)},
    )
