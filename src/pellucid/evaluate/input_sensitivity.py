"""Input sensitivity: whether units without effect have the score 0, and units with an effect another."""

from __future__ import annotations

import numpy as np

from pellucid.core.metadata import metric
from pellucid.core.params import NonNegativeFloat, Positive, PromptLike, Replacement, TargetLike
from pellucid.core.results import Evidence, Scores
from pellucid.evaluate._removal import judged
from pellucid.models.subject import Subject


@metric(
    rows=("EVF-6",),
    paper="arXiv:1703.01365",
    takes="prompt",
    produces="evidence",
    better="lower",
    needs=("scores",),
    cost="samples*(units+1)*F+(units+1)*F",
)
def input_sensitivity(
    subject: Subject, prompt: PromptLike, scores: Scores, *, target: TargetLike = None,
    contrast: int | str | None = None, replacement: Replacement | None = None,
    samples: Positive = 4, tolerance: NonNegativeFloat = 1e-3, seed: int = 0,
) -> Evidence:  # fmt: skip
    """Return the share of units that break one of the two sensitivity axioms.

    `missed`: the unit's removal alone changes the target, but its score is 0. `invented`: its removal changes nothing,
    from the whole prompt or from any of `samples` random parts of it, but its score is not 0 (sensitivity a and b of
    Sundararajan et al. 2017, arXiv:1703.01365). What is below `tolerance` of the largest counts as 0. Lower is better;
    the chance level, that of random numbers, is the share of units without effect. That a unit has no effect in any
    context is an approximation from those seen.

    Args:
        subject: the model, from `pellucid.load`, or a black box.
        prompt: the prompt that was explained.
        scores: one score per unit; the units of the metric are theirs.
        target: what was explained; None means what the model predicts.
        contrast: the alternative to compare with.
        replacement: "delete", "mask", "pad", "mean", "zero" or a token id; None takes "mask" where the model has a
            mask token, else "delete".
        samples: random parts of the prompt in which removals are tried, each unit staying with chance 1/2.
        tolerance: share of the largest score, or change, below which it counts as 0.
        seed: of the random parts.

    Returns:
        Evidence with the share, `missed`, `invented` and the chance level.

    Raises:
        InputError: scores of another prompt, or not one finite number per unit.
    """
    game = judged(subject, prompt, scores, target, contrast, replacement)
    units, rng = game.players, np.random.default_rng(seed)
    contexts = np.concatenate([np.ones((1, units), dtype=bool), rng.random((samples, units)) < 0.5])
    flipped = contexts[:, None] ^ np.eye(units, dtype=bool)[None]
    values = game.value(np.concatenate([contexts, flipped.reshape(-1, units)]))[:, 0]
    changes = np.abs(values[len(contexts) :].reshape(-1, units) - values[: len(contexts), None])
    given = np.abs(np.asarray(scores.values, dtype=np.float64))
    scored = given > tolerance * given.max()
    moving = changes > tolerance * changes.max()
    missed, dummy = moving[0] & ~scored, ~moving.any(0)
    invented = dummy & scored
    found, chance = float((missed | invented).mean()), float(dummy.mean())
    return Evidence(
        "input sensitivity",
        f"{int(missed.sum())} units with an effect have no score and {int(invented.sum())} without one have some, of "
        f"{units} (none is best).",
        {"value": found, "missed": float(missed.mean()), "invented": float(invented.mean()), "chance": chance},
    )
