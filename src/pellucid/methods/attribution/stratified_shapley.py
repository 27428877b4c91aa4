"""Stratified Shapley values: every unit is seen joining early, midway and late equally often."""

from __future__ import annotations

import numpy as np

from pellucid.core.metadata import method
from pellucid.core.params import Positive, PositiveFloat, PromptLike, Replacement, TargetLike, Unit
from pellucid.core.results import Scores
from pellucid.engine.game import efficiency, play, sampling_error
from pellucid.engine.orders import estimate_over_orders, rotations
from pellucid.models.subject import Subject


@method(
    rows=("FAS-4",),
    paper="arXiv:1306.4265",
    takes="prompt",
    produces="scores",
    axes=("unit",),
    needs=("scores",),
    cost="max(permutations, 2*strata)*units*F+2*F",
)
def stratified_shapley(
    subject: Subject, prompt: PromptLike, *, target: TargetLike = None, contrast: int | str | None = None,
    unit: Unit = "token", replacement: Replacement | None = None, permutations: Positive = 24, strata: Positive = 4,
    precision: PositiveFloat | None = None, seed: int = 0,
) -> Scores:  # fmt: skip
    """Share the change of the target among the units, from orders stratified by the place at which a unit joins.

    phi_i is the mean over places k of what i adds to k - 1 random others. Each random order is taken in `strata` evenly
    shifted forms, so that every unit joins once in each stretch of places: the spread between early and late leaves
    the estimate (stratification by size: Maleki et al. 2013, arXiv:1306.4265; Castro et al. 2017). Unbiased, with
    standard errors over independent orders; positive raises the target; the scores sum to v(all) - v(none).

    Args:
        subject: the model, from `pellucid.load`, or a black box.
        prompt: text, chat or token ids.
        target: what to explain; None means what the model predicts.
        contrast: the alternative to compare with.
        unit: "token", "word", "sentence", "line", "message" or token ranges.
        replacement: "delete", "mask", "pad", "mean", "zero" or a token id; None takes "mask" where the model has a
            mask token, else "delete".
        permutations: largest number of orders, all forms counted; at least two independent ones are drawn.
        strata: shifted forms of each random order; the number of units stratifies fully.
        precision: stop once every standard error is below this share of |v(all) - v(none)|.
        seed: of the orders.

    Returns:
        Scores [unit], or [unit, target] for a target with `each`; with the efficiency residual and the sampling error.
    """
    game = play(subject, prompt, target, contrast, unit, replacement)
    forms = min(strata, game.players)
    found = estimate_over_orders(
        game.players, game.value, rotations(game.players, forms, np.random.default_rng(seed)),
        orders_at_most=permutations, precision=precision,
    )  # fmt: skip
    title = f"Stratified Shapley values, {found.draws} orders in {forms} strata"
    result = game.question.answer(found.values, title, std_error=found.error)
    return result.with_evidence(
        efficiency(found.values, found.difference),
        *sampling_error(found.values, found.error, found.draws, "orders"),
    )
