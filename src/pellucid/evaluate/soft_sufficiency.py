"""Soft sufficiency: how much of the target is left when each unit stays in proportion to its score."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from pellucid.core.metadata import metric
from pellucid.core.params import Count, Positive, PromptLike, TargetLike
from pellucid.core.results import Evidence, Scores
from pellucid.evaluate._removal import against_chance, judged
from pellucid.evaluate._soft import keeping, losses
from pellucid.models.subject import Subject


@metric(
    rows=("EVF-1", "N-BM7"),
    paper="arXiv:2305.10496",
    takes="prompt",
    produces="evidence",
    better="higher",
    needs=("activations",),
    cost="(orders+1)*samples*F+2*F",
)
def soft_sufficiency(
    subject: Subject, prompt: PromptLike, scores: Scores, *, target: TargetLike = None,
    contrast: int | str | None = None, samples: Positive = 8, orders: Count = 10, seed: int = 0,
) -> Evidence:  # fmt: skip
    """Return how much of the target's probability is left when components stay with their unit's score as chance.

    Each component of an embedding is kept by a Bernoulli draw of the score of its unit, scores being moved to 0 ... 1
    by their smallest and largest; with the loss max(0, p(x) - p(masked)) the value is 1 - loss / loss of zeros in the
    place of all units (Zhao & Aletras 2023, arXiv:2305.10496, Soft-NS). NaN where zeros lose nothing. Higher is better,
    1 where nothing is lost; the mean over the same scores dealt to random units is the chance level. `loss` is not
    divided. What a function gives is taken in the place of the probability. An approximation from `samples` masks.

    Args:
        subject: the model, from `pellucid.load`.
        prompt: the prompt that was explained.
        scores: one score per unit; the units of the metric are theirs.
        target: what was explained; None means what the model predicts.
        contrast: the alternative to compare with.
        samples: random masks per explanation.
        orders: random explanations that it is compared with, which are the chance level.
        seed: of the masks and the random explanations.

    Returns:
        Evidence with the value, the mean over random explanations and the share of them that do worse.

    Raises:
        InputError: scores of another prompt, or not one finite number per unit.
    """
    question = judged(subject, prompt, scores, target, contrast, 0).question

    def lost(ranked: list[np.ndarray]) -> tuple[np.ndarray, float]:
        return losses(question, keeping(scores.values, ranked), samples, seed)

    def worth(ranked: list[np.ndarray]) -> np.ndarray:
        loss, whole = lost(ranked)
        result: np.ndarray = 1 - loss / whole if whole else np.full(len(loss), np.nan)
        return result

    found = against_chance("soft sufficiency", scores, worth, False, orders, seed)
    loss, whole = lost([np.argsort(-scores.values, kind="stable")])
    return replace(found, values={**found.values, "loss": float(loss[0]), "loss_of_all": whole})
