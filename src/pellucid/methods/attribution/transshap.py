"""TransSHAP: KernelSHAP over the tokens of each word, reported for the words in the order of the text."""

from __future__ import annotations

import numpy as np

from pellucid.core.metadata import method
from pellucid.core.params import Positive, PositiveFloat, PromptLike, Replacement, TargetLike
from pellucid.core.results import Scores
from pellucid.engine.adjusted import estimate
from pellucid.engine.game import efficiency, play, sampling_error
from pellucid.engine.linear_indices import LinearIndex, index_of
from pellucid.engine.question import ask
from pellucid.models.subject import Subject


@method(
    rows=("FAS-3",),
    paper="Kokalj et al. 2021, https://aclanthology.org/2021.hackashop-1.3",
    takes="prompt",
    produces="scores",
    axes=("unit",),
    needs=("scores",),
    cost="min(samples, 2**tokens)*F+2*F",
)
def transshap(
    subject: Subject, prompt: PromptLike, *, target: TargetLike = None, contrast: int | str | None = None,
    replacement: Replacement | None = None, samples: Positive = 512, precision: PositiveFloat | None = None,
    seed: int = 0,
) -> Scores:  # fmt: skip
    """Score words by the sum of the Shapley values of their tokens.

    The players are the tokens that the model itself reads, so that a rare word can lose one of its parts; the values
    of a word's tokens are added up and shown in the order of the text (Kokalj et al. 2021). Positive raises the
    target; the scores sum to v(all) - v(none). Exact where all coalitions of tokens fit into `samples`, otherwise
    unbiased with standard errors of the sums, as in `kernel_shap`. A prompt without text has tokens for words.

    Args:
        subject: the model, from `pellucid.load`, or a black box.
        prompt: text, chat or token ids.
        target: what to explain; None means what the model predicts.
        contrast: the alternative to compare with.
        replacement: "delete", "mask", "pad", "mean", "zero" or a token id; None takes "mask" where the model has a
            mask token, else "delete".
        samples: largest number of coalitions of tokens.
        precision: stop once every standard error is below this share of |v(all) - v(none)|.
        seed: of the coalitions.

    Returns:
        Scores [unit], the units being words, or [unit, target] for a target with `each`; with the efficiency residual,
        and the sampling error where sampled.

    Raises:
        InputError: fewer than 10 samples for more tokens than they can enumerate.
    """
    game = play(subject, prompt, target, contrast, "token", replacement)
    words = game.question
    if words.tokens.text:
        words = ask(subject, prompt, target=target, contrast=contrast, unit="word")
    inside = np.array([[start <= p < end for p, _ in game.question.units.spans] for start, end in words.units.spans])
    tokens = index_of("SII", np.eye(game.players, dtype=bool))
    index = LinearIndex(
        lambda masks, log_chance: tokens.counts(masks, log_chance) @ inside.T,
        lambda sets: tokens.of_sets(sets) @ inside.T,
    )
    found = estimate(
        game.players, game.value, index, samples=samples, sizes="kernel", rng=np.random.default_rng(seed),
        precision=precision,
    )  # fmt: skip
    title = "TransSHAP" if found.error is not None else "TransSHAP, exact"
    result = words.answer(found.values, title, std_error=found.error)
    return result.with_evidence(
        efficiency(found.values, found.difference),
        *sampling_error(found.values, found.error, found.draws, "random coalitions"),
    )
