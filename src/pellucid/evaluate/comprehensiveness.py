"""Comprehensiveness: how far the target falls when the units with the highest scores are removed."""

from __future__ import annotations

import numpy as np

from pellucid.core.metadata import metric
from pellucid.core.params import Count, PromptLike, Replacement, TargetLike
from pellucid.core.results import Evidence, Scores
from pellucid.evaluate._removal import SHARES, against_chance, counts_of, first, judged
from pellucid.models.subject import Subject


@metric(
    rows=("EVF-1",),
    paper="arXiv:1911.03429",
    takes="prompt",
    produces="evidence",
    better="higher",
    needs=("scores",),
    cost="(orders+1)*5*F+2*F",
)
def comprehensiveness(
    subject: Subject, prompt: PromptLike, scores: Scores, *, target: TargetLike = None,
    contrast: int | str | None = None, replacement: Replacement | None = None, orders: Count = 20, seed: int = 0,
) -> Evidence:  # fmt: skip
    """Return how far the target falls when the highest-scored units are removed, over several shares of them.

    mean over q in {1, 5, 10, 20, 50 %} of s(x) - s(x without the top q of its units), at least one unit each (DeYoung
    et al. 2020, arXiv:1911.03429). Higher is better; the mean over random orders is the chance level. Removing units
    leaves the training distribution, so it is evidence about the model on changed inputs. Exact for what it states.

    Args:
        subject: the model, from `pellucid.load`, or a black box.
        prompt: the prompt that was explained.
        scores: one score per unit; the units of the metric are theirs.
        target: what was explained; None means what the model predicts. The papers take the
            probability: `Target(measure="prob")`.
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
    counts = counts_of(SHARES, game.players)

    def worth(ranked: list[np.ndarray]) -> np.ndarray:
        masks = np.concatenate([np.ones((1, game.players), dtype=bool), *(~first(order, counts) for order in ranked)])
        values = game.value(masks)[:, 0]
        result: np.ndarray = values[0] - values[1:].reshape(len(ranked), -1).mean(1)
        return result

    return against_chance("comprehensiveness", scores, worth, False, orders, seed)
