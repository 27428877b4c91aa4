"""Area over the perturbation curve: how far the target falls on average as units are removed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from pellucid.core.metadata import metric
from pellucid.core.params import Count, Positive, PromptLike, Replacement, TargetLike
from pellucid.core.results import Evidence, Scores
from pellucid.evaluate._removal import against_chance, first, judged
from pellucid.models.subject import Subject


@metric(
    rows=("EVF-3",),
    paper="arXiv:1509.06321",
    takes="prompt",
    produces="evidence",
    better="higher",
    needs=("scores",),
    cost="(orders+2)*(units+1)*F",
)
def aopc(
    subject: Subject, prompt: PromptLike, scores: Scores, *, target: TargetLike = None,
    contrast: int | str | None = None, replacement: Replacement | None = None,
    steps: Positive | None = None, orders: Count = 20, seed: int = 0,
) -> Evidence:  # fmt: skip
    """Return the mean fall of the target as units are removed one by one, the highest scores first.

    AOPC = 1/(L+1) sum over k = 0 ... L of s(x) - s(x without the top k) (MoRF; Samek et al. 2017, arXiv:1509.06321).
    Higher is better; the mean over random orders is the chance level. `lowest_first` is the same with the lowest scores
    removed first (LeRF), where lower is better, and `between` what lies between the two curves. Exact for what it
    states. Removing units leaves the training distribution (see `removal_perplexity`).

    Args:
        subject: the model, from `pellucid.load`, or a black box.
        prompt: the prompt that was explained.
        scores: one score per unit; the units of the metric are theirs.
        target: what was explained; None means what the model predicts.
        contrast: the alternative to compare with.
        replacement: "delete", "mask", "pad", "mean", "zero" or a token id; None takes "mask" where the model has a
            mask token, else "delete".
        steps: L, the number of units removed at last; None removes all.
        orders: random orders that it is compared with, which are the chance level.
        seed: of the random orders.

    Returns:
        Evidence with the value, the mean over random orders and the share of them that do worse.

    Raises:
        InputError: scores of another prompt, or not one finite number per unit.
    """
    game = judged(subject, prompt, scores, target, contrast, replacement)
    counts = np.arange(min(steps or game.players, game.players) + 1)

    def worth(ranked: list[np.ndarray]) -> np.ndarray:
        masks = np.concatenate([~first(order, counts) for order in ranked])
        values = game.value(masks)[:, 0].reshape(len(ranked), -1)
        result: np.ndarray = (values[:, :1] - values).mean(1)
        return result

    found = against_chance("area over the perturbation curve", scores, worth, False, orders, seed)
    lowest = float(worth([np.argsort(scores.values, kind="stable")])[0])
    between = found.values["value"] - lowest
    return replace(found, values={**found.values, "lowest_first": lowest, "between": between})
