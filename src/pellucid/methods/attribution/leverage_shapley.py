"""Shapley values by leverage-score sampling: every size of coalition is drawn equally often."""

from __future__ import annotations

import numpy as np

from pellucid.core.metadata import method
from pellucid.core.params import Positive, PositiveFloat, PromptLike, Replacement, TargetLike, Unit
from pellucid.core.results import Scores
from pellucid.engine.adjusted import estimate
from pellucid.engine.game import efficiency, play, sampling_error
from pellucid.engine.linear_indices import index_of
from pellucid.models.subject import Subject


@method(
    rows=("FAS-4",),
    paper="arXiv:2410.01917",
    takes="prompt",
    produces="scores",
    axes=("unit",),
    needs=("scores",),
    cost="min(samples, 2**units)*F+F",
)
def leverage_shapley(
    subject: Subject, prompt: PromptLike, *, target: TargetLike = None, contrast: int | str | None = None,
    unit: Unit = "token", replacement: Replacement | None = None, samples: Positive = 512,
    precision: PositiveFloat | None = None, seed: int = 0,
) -> Scores:  # fmt: skip
    """Share the change of the target among the units, from coalitions drawn by their leverage.

    The Shapley values solve the regression of `kernel_shap`; the leverage of a coalition S in it is 1 / C(n, |S|), so
    all sizes are drawn equally often, in pairs with their complements, and sizes that fit are enumerated (Musco &
    Witter 2024, arXiv:2410.01917). The sampled regression is then corrected by draws it was not fitted to, which
    makes it unbiased. Positive raises the target; the scores sum to v(all) - v(none). Exact where all 2^n coalitions
    fit into `samples`.

    Args:
        subject: the model, from `pellucid.load`, or a black box.
        prompt: text, chat or token ids.
        target: what to explain; None means what the model predicts.
        contrast: the alternative to compare with.
        unit: "token", "word", "sentence", "line", "message" or token ranges.
        replacement: "delete", "mask", "pad", "mean", "zero" or a token id; None takes "mask" where the model has a
            mask token, else "delete".
        samples: largest number of coalitions.
        precision: stop once every standard error is below this share of |v(all) - v(none)|.
        seed: of the coalitions.

    Returns:
        Scores [unit], or [unit, target] for a target with `each`; with the efficiency residual, and the sampling
        error where sampled.

    Raises:
        InputError: fewer than 10 samples for more units than they can enumerate.
    """
    game = play(subject, prompt, target, contrast, unit, replacement)
    index = index_of("SII", np.eye(game.players, dtype=bool))
    found = estimate(
        game.players, game.value, index, samples=samples, sizes="uniform", rng=np.random.default_rng(seed),
        precision=precision,
    )  # fmt: skip
    title = "Leverage-score Shapley values" + (", exact" if found.error is None else "")
    result = game.question.answer(found.values, title, std_error=found.error)
    return result.with_evidence(
        efficiency(found.values, found.difference),
        *sampling_error(found.values, found.error, found.draws, "random coalitions"),
    )
