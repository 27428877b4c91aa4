"""Leave-one-out correlation: whether units with higher scores are those whose removal costs the target more."""

from __future__ import annotations

import numpy as np

from pellucid.core.metadata import metric
from pellucid.core.params import PromptLike, Replacement, TargetLike
from pellucid.core.results import Evidence, Scores
from pellucid.evaluate._removal import judged
from pellucid.models.subject import Subject


@metric(
    rows=("EVF-4",),
    paper="arXiv:2204.05514",
    takes="prompt",
    produces="evidence",
    better="higher",
    chance=0,
    needs=("scores",),
    cost="(units+1)*F",
)
def leave_one_out_correlation(
    subject: Subject, prompt: PromptLike, scores: Scores, *, target: TargetLike = None,
    contrast: int | str | None = None, replacement: Replacement | None = None,
) -> Evidence:  # fmt: skip
    """Return Pearson's correlation of the scores with what the target loses when each unit alone is removed.

    CORR: minus the correlation of score i with s(x without i) (Chan et al. 2022, arXiv:2204.05514, after Arya et al.
    2019). Higher is better, 1 at best; random scores have 0 on average. NaN where all scores or all drops are equal.
    Exact for what it states; it rewards methods that remove one unit at a time.

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
    drops, given = values[0, 0] - values[1:, 0], np.asarray(scores.values, dtype=np.float64)
    drops, given = drops - drops.mean(), given - given.mean()
    size = float(np.sqrt((drops**2).sum() * (given**2).sum()))
    found = float(drops @ given) / size if size else float("nan")
    return Evidence(
        "leave-one-out correlation",
        f"Scores and the drops when each unit alone is removed correlate with {found:.2f} (1 is best, 0 chance).",
        {"value": found},
    )
