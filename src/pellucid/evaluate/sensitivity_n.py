"""Sensitivity-n: whether sums of scores go with what removing n units together does to the target."""

from __future__ import annotations

from itertools import combinations
from math import comb

import numpy as np

from pellucid.core.metadata import metric
from pellucid.core.params import Fraction, Positive, PromptLike, Replacement, TargetLike
from pellucid.core.results import Evidence, Scores
from pellucid.evaluate._removal import judged
from pellucid.models.subject import Subject


@metric(
    rows=("EVF-6", "N-BM7"),
    paper="arXiv:1711.06104",
    takes="prompt",
    produces="evidence",
    better="higher",
    chance=0,
    needs=("scores",),
    cost="(samples+1)*F",
)
def sensitivity_n(
    subject: Subject, prompt: PromptLike, scores: Scores, *, target: TargetLike = None,
    contrast: int | str | None = None, replacement: Replacement | None = None,
    share: Fraction = 0.5, samples: Positive = 64, seed: int = 0,
) -> Evidence:  # fmt: skip
    """Return Pearson's correlation of the summed scores of n removed units with the fall of the target.

    The sets have n units each, a share of all, at least one (Ancona et al. 2018, arXiv:1711.06104; as faithfulness
    correlation Bhatt et al. 2020, arXiv:2005.00631). Higher is better, 1 where the scores add up; random scores have 0
    on average. NaN where all sums or all falls are equal. Exact where all sets fit into `samples`, else from random
    ones.

    Args:
        subject: the model, from `pellucid.load`, or a black box.
        prompt: the prompt that was explained.
        scores: one score per unit; the units of the metric are theirs.
        target: what was explained; None means what the model predicts.
        contrast: the alternative to compare with.
        replacement: "delete", "mask", "pad", "mean", "zero" or a token id; None takes "mask" where the model has a
            mask token, else "delete".
        share: of the units that is removed.
        samples: sets that are removed.
        seed: of the sets.

    Returns:
        Evidence with the correlation and n.

    Raises:
        InputError: scores of another prompt, or not one finite number per unit.
    """
    game = judged(subject, prompt, scores, target, contrast, replacement)
    units = game.players
    count = min(max(1, round(share * units)), units)
    if comb(units, count) <= samples:
        chosen = [list(one) for one in combinations(range(units), count)]
    else:
        rng = np.random.default_rng(seed)
        chosen = [rng.permutation(units)[:count].tolist() for _ in range(samples)]
    removed = np.zeros((len(chosen), units), dtype=bool)
    for row, members in zip(removed, chosen, strict=True):
        row[members] = True
    values = game.value(np.concatenate([np.ones((1, units), dtype=bool), ~removed]))[:, 0]
    sums, falls = removed @ np.asarray(scores.values, dtype=np.float64), values[0] - values[1:]
    varied = np.ptp(sums) > 1e-12 and np.ptp(falls) > 1e-12
    found = float(np.corrcoef(sums, falls)[0, 1]) if varied else float("nan")
    return Evidence(
        "sensitivity-n",
        f"Sums of the scores of {count} units and the falls when they are removed together correlate with {found:.2f} "
        "(1 is best, 0 chance).",
        {"value": found, "n": float(count), "sets": float(len(chosen))},
    )
