"""Banzhaf values: what a unit adds on average when every other unit is present or absent by the toss of a coin."""

from __future__ import annotations

import numpy as np

from pellucid.core.metadata import method
from pellucid.core.params import Positive, PositiveFloat, PromptLike, Replacement, TargetLike, Unit
from pellucid.core.results import Scores
from pellucid.engine.adjusted import estimate
from pellucid.engine.game import play, sampling_error
from pellucid.engine.linear_indices import index_of
from pellucid.models.subject import Subject


@method(
    rows=("FAS-4",),
    paper="arXiv:2205.15466",
    takes="prompt",
    produces="scores",
    axes=("unit",),
    needs=("scores",),
    cost="min(samples, 2**units)*F+F",
)
def banzhaf_values(
    subject: Subject, prompt: PromptLike, *, target: TargetLike = None, contrast: int | str | None = None,
    unit: Unit = "token", replacement: Replacement | None = None, samples: Positive = 512,
    precision: PositiveFloat | None = None, seed: int = 0,
) -> Scores:  # fmt: skip
    """Score each unit by its mean effect over all coalitions of the others, all equally likely.

    beta_i = 2^-(n-1) times the sum over S without i of v(S with i) - v(S); positive raises the target. No weights on
    sizes, so noise in single values moves the ranking least (Banzhaf 1965; Wang & Jia 2023, arXiv:2205.15466), but the
    scores need not sum to v(all) - v(none). They are the slopes of the linear game nearest to v. Exact where all 2^n
    coalitions fit into `samples`; otherwise unbiased, every coalition counting for every unit, in pairs with its
    complement, corrected by a regression on the other draws.

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
        Scores [unit], or [unit, target] for a target with `each`; with the sampling error where sampled.

    Raises:
        InputError: fewer than 10 samples for more units than they can enumerate.
    """
    game = play(subject, prompt, target, contrast, unit, replacement)
    index = index_of("BII", np.eye(game.players, dtype=bool))
    found = estimate(
        game.players, game.value, index, samples=samples, sizes="binomial", rng=np.random.default_rng(seed),
        precision=precision,
    )  # fmt: skip
    title = "Banzhaf values" + (", exact" if found.error is None else "")
    result = game.question.answer(found.values, title, std_error=found.error)
    return result.with_evidence(*sampling_error(found.values, found.error, found.draws, "random coalitions"))
