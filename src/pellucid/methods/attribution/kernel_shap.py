"""KernelSHAP: Shapley values from a regression on random coalitions, weighted by the Shapley kernel."""

from __future__ import annotations

from typing import Literal

import numpy as np

from pellucid.core.metadata import method
from pellucid.core.params import Positive, PositiveFloat, PromptLike, Replacement, TargetLike, Unit
from pellucid.core.results import Scores
from pellucid.engine.adjusted import Estimate, estimate
from pellucid.engine.designs import design
from pellucid.engine.game import Game, efficiency, play, sampling_error
from pellucid.engine.linear_indices import index_of
from pellucid.engine.regression import shapley_regression
from pellucid.models.subject import Subject


@method(
    rows=("FAS-2",),
    paper="arXiv:1705.07874",
    takes="prompt",
    produces="scores",
    axes=("unit",),
    needs=("scores",),
    cost="min(samples, 2**units)*F+F",
)
def kernel_shap(
    subject: Subject, prompt: PromptLike, *, target: TargetLike = None, contrast: int | str | None = None,
    unit: Unit = "token", replacement: Replacement | None = None, samples: Positive = 512,
    estimator: Literal["unbiased", "regression"] = "unbiased", precision: PositiveFloat | None = None, seed: int = 0,
) -> Scores:  # fmt: skip
    """Share the change of the target between nothing and the whole prompt among the units, from random coalitions.

    phi minimises the sum over coalitions S of k(S) [v(S) - v(none) - sum of phi_i, i in S]^2 with k(S) = (n-1) /
    (C(n,|S|) |S| (n-|S|)) and phi summing to v(all) - v(none); positive raises the target. Exact where all 2^n
    coalitions fit into `samples`. Otherwise small and large coalitions are enumerated as far as they fit, and the
    others drawn by k in pairs with their complements. "regression" solves that problem on the sample (Lundberg & Lee
    2017), with a bias of order 1 / samples; "unbiased" corrects the regression by draws that it was not fitted to
    (Covert & Lee 2021; Witter et al. 2025). The scores sum to v(all) - v(none) in every case.

    Args:
        subject: the model, from `pellucid.load`, or a black box.
        prompt: text, chat or token ids.
        target: what to explain; None means what the model predicts.
        contrast: the alternative to compare with.
        unit: "token", "word", "sentence", "line", "message" or token ranges.
        replacement: "delete", "mask", "pad", "mean", "zero" or a token id; None takes "mask" where the model has a
            mask token, else "delete".
        samples: largest number of coalitions.
        estimator: "unbiased" or "regression".
        precision: stop once every standard error is below this share of |v(all) - v(none)| ("unbiased" only).
        seed: of the coalitions.

    Returns:
        Scores [unit], or [unit, target] for a target with `each`; with the efficiency residual, and the sampling
        error where sampled.

    Raises:
        InputError: fewer than 10 samples for more units than they can enumerate.
    """
    game, rng = play(subject, prompt, target, contrast, unit, replacement), np.random.default_rng(seed)
    if estimator == "regression":
        found = _regression(game, samples, rng)
    else:
        index = index_of("SII", np.eye(game.players, dtype=bool))
        found = estimate(game.players, game.value, index, samples=samples, sizes="kernel", rng=rng, precision=precision)
    title = "KernelSHAP" if found.error is not None else "KernelSHAP, exact"
    result = game.question.answer(found.values, title, std_error=found.error)
    return result.with_evidence(
        efficiency(found.values, found.difference),
        *sampling_error(found.values, found.error, found.draws, "random coalitions"),
    )


def _regression(game: Game, samples: int, rng: np.random.Generator) -> Estimate:
    plan = design(game.players, samples, "kernel", rng)
    flat = plan.pairs.reshape(-1, game.players)
    scored = game.value(np.concatenate([plan.full, flat]))
    known = scored[: len(plan.full)]
    values, error = shapley_regression(plan, known, scored[len(known) :].reshape(len(plan.pairs), 2, scored.shape[1]))
    return Estimate(values, error, known[plan.full.all(1)][0] - known[~plan.full.any(1)][0], len(flat))
