"""Decision flip, fraction of units: how many have to go, highest scores first, until the decision changes."""

from __future__ import annotations

import numpy as np

from pellucid.core.metadata import metric
from pellucid.core.params import Count, PromptLike, Replacement, TargetLike
from pellucid.core.results import Evidence, Scores
from pellucid.evaluate._decision import margin
from pellucid.evaluate._removal import against_chance, first, judged
from pellucid.models.subject import Subject


@metric(
    rows=("EVF-2",),
    paper="arXiv:1906.03731",
    takes="prompt",
    produces="evidence",
    better="lower",
    needs=("scores",),
    cost="(orders+1)*units*F+F",
)
def decision_flip_fraction(
    subject: Subject, prompt: PromptLike, scores: Scores, *, target: TargetLike = None,
    contrast: int | str | None = None, replacement: Replacement | None = None,
    orders: Count = 20, seed: int = 0,
) -> Evidence:  # fmt: skip
    """Return the share of units that are removed, the highest scores first, when the decision first changes.

    DFFOT; 1 where it never does (Serrano & Smith 2019, arXiv:1906.03731; Chan et al. 2022, arXiv:2204.05514). The
    decision is for the target or against it: against every other class or token, or against the contrast. Lower is
    better; the mean over random orders is the chance level. Exact for what it states.

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
        TargetError: a target of several tokens, or one that decides nothing.
    """
    game = margin(judged(subject, prompt, scores, target, contrast, replacement))
    counts = np.arange(1, game.players + 1)

    def worth(ranked: list[np.ndarray]) -> np.ndarray:
        masks = np.concatenate([np.ones((1, game.players), dtype=bool), *(~first(order, counts) for order in ranked)])
        holds = game.value(masks)[:, 0] > 0
        flips = (holds[1:] != holds[0]).reshape(len(ranked), -1)
        result: np.ndarray = np.where(flips.any(1), flips.argmax(1) + 1, game.players) / game.players
        return result

    return against_chance("fraction of units until the decision flips", scores, worth, True, orders, seed)
