"""LIME: a sparse linear model of the target around the prompt, fitted to variants with words removed."""

from __future__ import annotations

import numpy as np

from pellucid.core.metadata import method
from pellucid.core.params import (
    NonNegativeFloat,
    Normalise,
    Positive,
    PositiveFloat,
    PromptLike,
    Replacement,
    TargetLike,
    Unit,
)
from pellucid.core.results import Scores
from pellucid.engine.coalitions import all_coalitions
from pellucid.engine.designs import log_count
from pellucid.engine.game import play, sampling_error
from pellucid.engine.question import normalised
from pellucid.engine.regression import lasso_choice, surrogate_fit, weighted_linear
from pellucid.models.subject import Subject


@method(
    rows=("FAS-1",),
    paper="arXiv:1602.04938",
    takes="prompt",
    produces="scores",
    axes=("unit",),
    needs=("scores",),
    cost="min(samples, 2**units)*F+F",
)
def lime(
    subject: Subject, prompt: PromptLike, *, target: TargetLike = None, contrast: int | str | None = None,
    unit: Unit = "token", replacement: Replacement | None = None, samples: Positive = 512,
    features: Positive | None = None, kernel_width: PositiveFloat = 25.0, ridge: NonNegativeFloat = 0.0,
    normalise: Normalise = "none", seed: int = 0,
) -> Scores:  # fmt: skip
    """Score each unit by its weight in a linear model of the target over which units are present.

    w minimises the sum over variants z of pi(z) (v(z) - b - w z)^2 + ridge |w|^2, with pi(z) = exp(-d^2 / (2
    kernel_width^2)) and d = 100 (1 - cosine(z, all)); how many units are removed is uniform from none to all (Ribeiro
    et al. 2016, arXiv:1602.04938, whose text explainer takes ridge=1). With `features` only as many units as the lasso
    path picks first get a weight, fitted anew; the others are 0. Positive raises the target. An approximation: what
    the surrogate misses is in the evidence. Where all 2^n coalitions fit into `samples` the fit is over all of them;
    otherwise it has standard errors (none with `features`, because the choice is not part of them).

    Args:
        subject: the model, from `pellucid.load`, or a black box.
        prompt: text, chat or token ids.
        target: what to explain; None means what the model predicts.
        contrast: the alternative to compare with.
        unit: "token", "word", "sentence", "line", "message" or token ranges.
        replacement: "delete", "mask", "pad", "mean", "zero" or a token id; None takes "mask" where the model has a
            mask token, else "delete".
        samples: number of variants.
        features: largest number of units with a weight; None keeps all.
        kernel_width: how far from the prompt variants still count, in hundredths of the cosine distance.
        ridge: penalty on the squared weights.
        normalise: scale of the scores.
        seed: of the variants.

    Returns:
        Scores [unit], or [unit, target] for a target with `each`; with the fit of the surrogate, and the sampling
        error where sampled.
    """
    game = play(subject, prompt, target, contrast, unit, replacement)
    masks, chance = _variants(game.players, samples, np.random.default_rng(seed))
    distance = 100 * (1 - np.sqrt(masks.mean(1)))
    weights = chance * np.exp(-(distance**2) / (2 * kernel_width**2))
    weights = weights * len(masks) / weights.sum()
    values = game.value(masks)
    slopes, _, error, predicted = weighted_linear(masks, values, weights, ridge)
    exact = len(masks) == 2.0**game.players
    sampled = None if exact or features is not None or normalise != "none" else error
    if features is not None and features < game.players:
        slopes = np.zeros_like(slopes)
        for column in range(values.shape[1]):
            kept = lasso_choice(masks, values[:, column], weights, features)
            refit = weighted_linear(masks[:, kept], values[:, [column]], weights, ridge)
            slopes[kept, column], predicted[:, column] = refit[0][:, 0], refit[3][:, 0]
    result = game.question.answer(normalised(slopes, normalise), "LIME", std_error=sampled)
    return result.with_evidence(
        surrogate_fit(values, predicted, weights), *sampling_error(slopes, sampled, len(masks), "variants")
    )


def _variants(players: int, samples: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return which units are present in each variant, and how much each stands for: all of them, or a sample."""
    if 2.0**players <= samples:
        masks = all_coalitions(players)
        return masks, np.exp(-log_count(players)[masks.sum(1)])
    rank = rng.random((samples, players)).argsort(1).argsort(1)
    masks = rank < rng.integers(0, players + 1, size=(samples, 1))
    masks[0] = True
    return masks, np.ones(samples)
