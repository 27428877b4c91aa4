"""Shapley values: the change of the target shared out fairly over all orders in which units could appear."""

from __future__ import annotations

import numpy as np

from pellucid.core.errors import InputError
from pellucid.core.metadata import method
from pellucid.core.params import Positive, PositiveFloat, PromptLike, Replacement, TargetLike, Unit
from pellucid.core.results import Scores
from pellucid.engine.coalitions import all_coalitions, exact_shapley, sampled_shapley
from pellucid.engine.game import efficiency, play, sampling_error
from pellucid.models.subject import Subject

EXACT_LIMIT = 12


@method(
    rows=("FAS-4", "N-AT6", "N-AT10"),
    paper="arXiv:2207.07605",
    takes="prompt",
    produces="scores",
    axes=("unit",),
    needs=("scores",),
    cost="max(permutations*(units+1)*(1-exact), exact*2**units)*F+2*F",
)
def shapley_values(
    subject: Subject, prompt: PromptLike, *, target: TargetLike = None, contrast: int | str | None = None,
    unit: Unit = "token", replacement: Replacement | None = None, exact: bool = False, permutations: Positive = 24,
    precision: PositiveFloat | None = None, seed: int = 0,
) -> Scores:  # fmt: skip
    """Share the change of the target between nothing and the whole prompt among the units.

    phi_i = sum over S without i of |S|! (n-|S|-1)! / n! * [v(S with i) - v(S)]; positive raises the target. The scores
    sum to v(all) - v(none) in both modes. `exact` enumerates all coalitions (up to 12 units); otherwise orders are
    sampled in antithetic pairs: unbiased, with standard errors (Shapley 1953; Castro et al. 2009; Chen et al. 2023,
    arXiv:2207.07605). For a continuation the target is its log-probability, as a sum or for each token from the same
    passes (Miglani et al. 2023), for a contrast log p(target) - log p(foil) (Yin & Neubig 2022).

    Args:
        subject: the model, from `pellucid.load`, or a black box.
        prompt: text, chat or token ids.
        target: what to explain; None means what the model predicts.
        contrast: the alternative to compare with.
        unit: "token", "word", "sentence", "line", "message" or token ranges.
        replacement: "delete", "mask", "pad", "mean", "zero" or a token id; None takes "mask" where the model has a
            mask token, else "delete".
        exact: enumerate all 2^n coalitions instead of sampling.
        permutations: largest number of sampled orders, taken all at once without a `precision`; equal coalitions are
            scored once.
        precision: stop once every standard error is below this share of |v(all) - v(none)|.
        seed: of the orders.

    Returns:
        Scores [unit], or [unit, target] for a target with `each`; with the efficiency residual, and the sampling
        error where sampled.

    Raises:
        InputError: `exact` with more than 12 units.
    """
    game = play(subject, prompt, target, contrast, unit, replacement)
    players = game.players
    if exact and players > EXACT_LIMIT:
        raise InputError(
            f"Exact Shapley values were asked for {players} units, but only {EXACT_LIMIT} can be enumerated; use a "
            "coarser unit or exact=False."
        )
    if exact:
        scored = game.value(all_coalitions(players))
        values, error, count = exact_shapley(scored, players), None, 0
        ends = scored[-1] - scored[0]
    else:
        values, error, count = sampled_shapley(
            players, game.value, permutations_at_most=permutations, precision=precision,
            rng=np.random.default_rng(seed),
        )  # fmt: skip
        whole = game.value(np.array([[True] * players, [False] * players]))
        ends = whole[0] - whole[1]
    title = "Shapley values, exact" if exact else f"Shapley values, {count} orders"
    result = game.question.answer(values, title, std_error=error)
    return result.with_evidence(efficiency(values, ends), *sampling_error(values, error, count, "orders"))
