"""Monotonicity: whether the target rises as units are added, the lowest scores first."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from pellucid.core.metadata import metric
from pellucid.core.params import Count, PromptLike, Replacement, TargetLike
from pellucid.core.results import Evidence, Scores
from pellucid.evaluate._ranking import rank_correlation
from pellucid.evaluate._removal import against_chance, first, judged
from pellucid.models.subject import Subject


@metric(
    rows=("EVF-4",),
    paper="arXiv:1909.03012",
    takes="prompt",
    produces="evidence",
    better="higher",
    needs=("scores",),
    cost="(orders+1)*(units+1)*F",
)
def monotonicity(
    subject: Subject, prompt: PromptLike, scores: Scores, *, target: TargetLike = None,
    contrast: int | str | None = None, replacement: Replacement | None = None,
    orders: Count = 20, seed: int = 0,
) -> Evidence:  # fmt: skip
    """Return how steadily the target rises as units are added one by one, the lowest scores first.

    Spearman's correlation of k with s(the k lowest units), k = 0 ... n (Chan et al. 2022, arXiv:2204.05514, after Arya
    et al. 2019, arXiv:1909.03012). Higher is better; the mean over random orders is the chance level. The papers'
    formula suits scores of one sign: any order raises a target that all units support, and where some lower it the
    true order falls before it rises, so that it may do worse than chance. `gains`, the rank correlation of each unit's
    score with the rise when it is added, is 1 for every additive target; `never_falls` is Arya's yes or no. Exact for
    what it states.

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

    def curves(ranked: list[np.ndarray]) -> np.ndarray:
        masks = np.concatenate([first(order[::-1], counts) for order in ranked])
        return game.value(masks)[:, 0].reshape(len(ranked), -1)

    def worth(ranked: list[np.ndarray]) -> np.ndarray:
        return np.array([rank_correlation(counts, curve) for curve in curves(ranked)])

    found = against_chance("monotonicity", scores, worth, False, orders, seed)
    falling = np.argsort(-scores.values, kind="stable")
    rises = np.diff(curves([falling])[0])
    gains = rank_correlation(rises, scores.values[falling[::-1]])
    more = {"never_falls": float((rises >= -1e-9).all()), "gains": gains}
    return replace(found, values={**found.values, **more})
