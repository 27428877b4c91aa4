"""RISE: the mean of the target over random maskings that leave a unit in."""

from __future__ import annotations

import numpy as np

from pellucid.core.errors import InputError
from pellucid.core.metadata import method
from pellucid.core.params import Fraction, Positive, PromptLike, Replacement, TargetLike, Unit
from pellucid.core.results import Scores
from pellucid.engine.coalitions import all_coalitions
from pellucid.engine.game import play, sampling_error
from pellucid.models.subject import Subject


@method(
    rows=(),
    paper="arXiv:1806.07421",
    takes="prompt",
    produces="scores",
    axes=("unit",),
    needs=("scores",),
    cost="min(samples, 2**units)*F+F",
)
def rise(
    subject: Subject, prompt: PromptLike, *, target: TargetLike = None, contrast: int | str | None = None,
    unit: Unit = "token", replacement: Replacement | None = None, samples: Positive = 512, keep: Fraction = 0.5,
    seed: int = 0,
) -> Scores:  # fmt: skip
    """Score each unit by the expected target over random coalitions that it is in.

    S_i = E[v(M) | M_i = 1], every unit being kept with probability `keep` on its own (Petsiuk et al. 2018,
    arXiv:1806.07421). Larger means more important; only differences between units have a meaning, and for keep = 1/2
    they are half the differences of the Banzhaf values. Exact where all 2^n coalitions fit into `samples`; otherwise
    the mean over the random coalitions that hold the unit: unbiased, with standard errors.

    Args:
        subject: the model, from `pellucid.load`, or a black box.
        prompt: text, chat or token ids.
        target: what to explain; None means what the model predicts.
        contrast: the alternative to compare with.
        unit: "token", "word", "sentence", "line", "message" or token ranges.
        replacement: "delete", "mask", "pad", "mean", "zero" or a token id; None takes "mask" where the model has a
            mask token, else "delete".
        samples: number of coalitions.
        keep: chance of each unit to be kept, between 0 and 1.
        seed: of the coalitions.

    Returns:
        Scores [unit], or [unit, target] for a target with `each`; with the sampling error where sampled.

    Raises:
        InputError: a `keep` of 0 or 1, or so few samples that some unit was kept in fewer than two.
    """
    if not 0.0 < keep < 1.0:
        raise InputError(f"Units were to be kept with the chance {keep:g}; give one between 0 and 1, such as 0.5.")
    game = play(subject, prompt, target, contrast, unit, replacement)
    exact = 2.0**game.players <= samples
    if exact:
        masks = all_coalitions(game.players)
        weights = keep ** masks.sum(1) * (1 - keep) ** (~masks).sum(1)
    else:
        masks = np.random.default_rng(seed).random((samples, game.players)) < keep
        weights = np.full(samples, 1 / samples)
    if masks.sum(0).min() < (1 if exact else 2):
        raise InputError(
            f"In {samples} samples with keep={keep:g} some unit was kept fewer than twice; raise samples or keep."
        )
    worth, held = game.value(masks), masks * weights[:, None]
    values = held.T @ worth / held.sum(0)[:, None]
    error = None
    if not exact:
        spread = np.stack([worth[masks[:, i]].var(0, ddof=1) for i in range(game.players)])
        error = np.sqrt(spread / masks.sum(0)[:, None])
    result = game.question.answer(
        values, "RISE", std_error=error, sign="larger raises the target more; zero has no meaning of its own"
    )
    return result.with_evidence(*sampling_error(values - values.mean(0), error, len(masks), "random coalitions"))
