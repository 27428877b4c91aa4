"""Log-odds: what removing the highest-scored units does to the log-probability of the target."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from pellucid.core.metadata import metric
from pellucid.core.params import Count, Fraction, PromptLike, Replacement, TargetLike
from pellucid.core.results import Evidence, Scores
from pellucid.evaluate._decision import in_measure
from pellucid.evaluate._removal import against_chance, counts_of, first, judged
from pellucid.models.subject import Subject


@metric(
    rows=("EVF-3",),
    paper="arXiv:1704.02685",
    takes="prompt",
    produces="evidence",
    better="lower",
    needs=("scores",),
    cost="(orders+1)*F+F",
)
def log_odds(
    subject: Subject, prompt: PromptLike, scores: Scores, *, target: TargetLike = None,
    contrast: int | str | None = None, replacement: Replacement | None = None,
    share: Fraction = 0.2, orders: Count = 20, seed: int = 0,
) -> Evidence:  # fmt: skip
    """Return log p(target | x without its top units) - log p(target | x).

    The top units are a share of all, at least one (Shrikumar et al. 2017, arXiv:1704.02685; on texts Chan et al. 2022,
    arXiv:2204.05514). Lower is better: negative where the target became less probable; the mean over random orders is
    the chance level. The probability is of the class or token, with a contrast the ratio of the two, of a continuation
    all its tokens together; what a black box or a function gives is taken as a log-probability. Exact for what it
    states, in nats.

    Args:
        subject: the model, from `pellucid.load`, or a black box.
        prompt: the prompt that was explained.
        scores: one score per unit; the units of the metric are theirs.
        target: what was explained; None means what the model predicts.
        contrast: the alternative to compare with.
        replacement: "delete", "mask", "pad", "mean", "zero" or a token id; None takes "mask" where the model has a
            mask token, else "delete".
        share: of the units that is removed.
        orders: random orders that it is compared with, which are the chance level.
        seed: of the random orders.

    Returns:
        Evidence with the value, the mean over random orders and the share of them that do worse.

    Raises:
        InputError: scores of another prompt, or not one finite number per unit.
    """
    game = judged(subject, prompt, scores, target, contrast, replacement)
    game = replace(game, question=in_measure(game.question, "log_prob"))
    counts = np.maximum(counts_of((share,), game.players), 1)

    def worth(ranked: list[np.ndarray]) -> np.ndarray:
        masks = np.concatenate([np.ones((1, game.players), dtype=bool), *(~first(order, counts) for order in ranked)])
        values = game.value(masks)[:, 0]
        result: np.ndarray = values[1:] - values[0]
        return result

    return against_chance("log-odds", scores, worth, True, orders, seed)
