"""Decision flip of the most important unit: whether removing it alone changes what the model decides."""

from __future__ import annotations

import numpy as np

from pellucid.core.metadata import metric
from pellucid.core.params import PromptLike, Replacement, TargetLike
from pellucid.core.results import Evidence, Scores
from pellucid.evaluate._decision import margin
from pellucid.evaluate._removal import judged
from pellucid.models.subject import Subject


@metric(
    rows=("EVF-2",),
    paper="arXiv:1906.03731",
    takes="prompt",
    produces="evidence",
    better="higher",
    needs=("scores",),
    cost="(units+1)*F",
)
def decision_flip_top(
    subject: Subject, prompt: PromptLike, scores: Scores, *, target: TargetLike = None,
    contrast: int | str | None = None, replacement: Replacement | None = None,
) -> Evidence:  # fmt: skip
    """Return 1 where removing the highest-scored unit alone changes what the model decides, else 0.

    DFMIT; its mean over prompts is the rate of flips (Serrano & Smith 2019, arXiv:1906.03731; Chan et al. 2022,
    arXiv:2204.05514). The decision is for the target or against it: against every other class or token, or against the
    contrast. Higher is better; the chance level is the share of all units that flip it alone, which is exact.

    Args:
        subject: the model, from `pellucid.load`, or a black box.
        prompt: the prompt that was explained.
        scores: one score per unit; the units of the metric are theirs.
        target: what was explained; None means what the model predicts.
        contrast: the alternative to compare with.
        replacement: "delete", "mask", "pad", "mean", "zero" or a token id; None takes "mask" where the model has a
            mask token, else "delete".

    Returns:
        Evidence with the value and its chance level.

    Raises:
        InputError: scores of another prompt, or not one finite number per unit.
        TargetError: a target of several tokens, or one that decides nothing.
    """
    game = margin(judged(subject, prompt, scores, target, contrast, replacement))
    values = game.value(np.concatenate([np.ones((1, game.players), dtype=bool), ~np.eye(game.players, dtype=bool)]))
    flips = (values[1:, 0] > 0) != (values[0, 0] > 0)
    found, chance = float(flips[int(np.argmax(scores.values))]), float(flips.mean())
    return Evidence(
        "decision flip of the top unit",
        f"Removing the highest-scored unit {'changes' if found else 'does not change'} the decision; "
        f"{100 * chance:.0f} % of all units would. A flip is better.",
        {"value": found, "chance": chance},
    )
