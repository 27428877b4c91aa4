"""Planted tokens: whether an explanation ranks the words that are known to decide above all others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.stats import rankdata

from pellucid.core.metadata import metric
from pellucid.core.params import Array, Positive
from pellucid.core.results import Evidence, Scores
from pellucid.evaluate._rationale import chosen, judged


@metric(rows=("EVF-8", "EVF-12"), paper="arXiv:2111.07367", takes="labels", produces="evidence", better="higher")
def planted_tokens(
    scores: Scores, planted: Sequence[Any] | Array, *, top: Positive | None = None, absolute: bool = False
) -> Evidence:
    """Return the share of the k highest units that were planted as a shortcut, with their mean rank.

    For models whose training data held a shortcut, so that its words are known to decide (Bastings et al. 2022,
    arXiv:2111.07367); with data that were poisoned on purpose, `recall` is the definition-driven check of Liu et al.
    2020. Higher is better; the chance level is the planted share of all units. `mean_rank` counts from 1, lower being
    better, and is (units + 1) / 2 by chance. Exact.

    Args:
        scores: one score per unit.
        planted: what was planted: (start, end) character ranges of the text, words or phrases of it, or one yes or no
            (1 or 0) per unit.
        top: k; None takes as many as were planted.
        absolute: rank by |score|, for shortcuts that may stand for either class.

    Returns:
        Evidence with precision at k, recall, mean rank and the chance level of precision.

    Raises:
        InputError: not one finite score per unit, or planted words that do not fit the text.
    """
    given = judged(scores, planted)
    if absolute:
        given = type(given)(np.abs(given.scores), given.marked)
    mask = chosen(given, top)
    hits, count = int((mask & given.marked).sum()), int(mask.sum())
    found, chance = hits / count, float(given.marked.mean())
    rank = float(rankdata(-given.scores)[given.marked].mean())
    return Evidence(
        "planted tokens",
        f"{hits} of the {count} highest-scored units were planted ({100 * chance:.0f} % by chance); their mean rank is "
        f"{rank:.1f} of {len(given.scores)}.",
        {"value": found, "recall": hits / int(given.marked.sum()), "mean_rank": rank, "chance": chance},
    )
