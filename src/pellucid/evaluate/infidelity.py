"""Infidelity: how far sums of scores are from what removing those units together does to the target."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from pellucid.core.metadata import metric
from pellucid.core.params import Count, Positive, PromptLike, Replacement, TargetLike
from pellucid.core.results import Evidence, Scores
from pellucid.evaluate._chance import placed
from pellucid.evaluate._removal import against_chance, judged
from pellucid.models.subject import Subject


@metric(
    rows=("N-BM7",),
    paper="arXiv:1901.09392",
    takes="prompt",
    produces="evidence",
    better="lower",
    needs=("scores",),
    cost="(samples+1)*F",
)
def infidelity(
    subject: Subject, prompt: PromptLike, scores: Scores, *, target: TargetLike = None,
    contrast: int | str | None = None, replacement: Replacement | None = None,
    samples: Positive = 64, scaled: bool = False, orders: Count = 20, seed: int = 0,
) -> Evidence:  # fmt: skip
    """Return the mean squared gap between the scores of removed units and the fall of the target.

    mean over removed sets I of (sum of scores in I - (s(x) - s(x without I)))^2, each unit being in I with chance 1/2
    (Yeh et al. 2019, arXiv:1901.09392). Lower is better, 0 where the scores add up for every set; the chance level is
    the mean over the same scores dealt to random units. `relative` divides by what scores of 0 have. The unit is that
    of the target, squared. Exact where all 2^units sets fit into `samples`, else an approximation from random sets.

    Args:
        subject: the model, from `pellucid.load`, or a black box.
        prompt: the prompt that was explained.
        scores: one score per unit; the units of the metric are theirs.
        target: what was explained; None means what the model predicts.
        contrast: the alternative to compare with.
        replacement: "delete", "mask", "pad", "mean", "zero" or a token id; None takes "mask" where the model has a
            mask token, else "delete".
        samples: sets that are removed; all random explanations are held to the same.
        scaled: multiply the scores by the number that fits best, for methods whose scores have no unit.
        orders: random explanations that it is compared with, which are the chance level.
        seed: of the sets and the random explanations.

    Returns:
        Evidence with the value, the mean over random explanations and the share of them that do worse.

    Raises:
        InputError: scores of another prompt, or not one finite number per unit.
    """
    game = judged(subject, prompt, scores, target, contrast, replacement)
    rng, exact = np.random.default_rng(seed), 2**game.players <= samples
    removed = rng.random((samples, game.players)) < 0.5
    if exact:
        removed = (np.arange(2**game.players)[:, None] >> np.arange(game.players)) % 2 == 1
    values = game.value(np.concatenate([np.ones((1, game.players), dtype=bool), ~removed]))[:, 0]
    falls = values[0] - values[1:]

    def worth(ranked: list[np.ndarray]) -> np.ndarray:
        sums = placed(scores.values, ranked) @ removed.T
        size = (sums**2).sum(1)
        best = np.divide(sums @ falls, size, out=np.zeros_like(size), where=size > 0) if scaled else np.ones(len(sums))
        result: np.ndarray = ((best[:, None] * sums - falls) ** 2).mean(1)
        return result

    found = against_chance("infidelity", scores, worth, True, orders, seed)
    size = float((falls**2).mean())
    relative = found.values["value"] / size if size else float("nan")
    return replace(found, values={**found.values, "relative": relative, "exact": float(exact)})
