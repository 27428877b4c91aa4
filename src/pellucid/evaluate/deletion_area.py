"""Deletion area: how fast the target falls as units are removed, the highest scores first."""

from __future__ import annotations

import numpy as np

from pellucid.core.metadata import metric
from pellucid.core.params import Count, PromptLike, Replacement, TargetLike
from pellucid.core.results import Evidence, Scores
from pellucid.evaluate._removal import against_chance, first, judged
from pellucid.models.subject import Subject


@metric(
    rows=("EVF-3",),
    paper="arXiv:1509.06321",
    takes="prompt",
    produces="evidence",
    better="lower",
    needs=("scores",),
    cost="(orders+1)*(units+1)*F+F",
)
def deletion_area(
    subject: Subject, prompt: PromptLike, scores: Scores, *, target: TargetLike = None,
    contrast: int | str | None = None, replacement: Replacement | None = None, orders: Count = 20, seed: int = 0,
) -> Evidence:  # fmt: skip
    """Return the area under the target as units are removed one by one, the highest scores first.

    The trapezoidal area under s(x without the top k) over k / n, k = 0 ... n, in the unit of the target: the curve of
    the most relevant first (MoRF; Samek et al. 2017, arXiv:1509.06321). Lower is better; the mean over random orders is
    the chance level. Removing units leaves the training distribution. Exact for what it states.

    Args:
        subject: the model, from `pellucid.load`, or a black box.
        prompt: the prompt that was explained.
        scores: one score per unit; the units of the metric are theirs.
        target: what was explained; None means what the model predicts.
        contrast: the alternative to compare with.
        replacement: "delete", "mask", "pad", "mean", "zero" or a token id; None takes "mask" where the model has a
            mask token, else "delete".
        orders: random orders that it is compared with, which are the chance level.
        seed: of the random orders.

    Returns:
        Evidence with the value, the mean over random orders and the share of them that do worse.

    Raises:
        InputError: scores of another prompt, or not one finite number per unit.
    """
    game = judged(subject, prompt, scores, target, contrast, replacement)
    counts = np.arange(game.players + 1)

    def worth(ranked: list[np.ndarray]) -> np.ndarray:
        masks = np.concatenate([~first(order, counts) for order in ranked])
        values = game.value(masks)[:, 0].reshape(len(ranked), -1)
        result: np.ndarray = np.trapezoid(values, counts / game.players, axis=1)
        return result

    return against_chance("deletion area", scores, worth, True, orders, seed)
