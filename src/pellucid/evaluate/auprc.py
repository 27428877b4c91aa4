"""AUPRC: how well scores, without a threshold, set the units that people marked above all others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.metrics import auc, precision_recall_curve

from pellucid.core.metadata import metric
from pellucid.core.params import Array, Fraction
from pellucid.core.results import Evidence, Scores
from pellucid.evaluate._ranking import average_precision, chance_precision
from pellucid.evaluate._rationale import judged


@metric(rows=("EVP-1", "EVP-2"), paper="arXiv:1911.03429", takes="labels", produces="evidence", better="higher")
def auprc(scores: Scores, rationale: Sequence[Any] | Array, *, resolution: Fraction = 0.001) -> Evidence:
    """Return the area under precision and recall of the scores against the units that people marked.

    The sum of steps in recall times precision (average precision), tied scores being one step. DeYoung et al. 2020
    (arXiv:1911.03429) and ferret join the points by straight lines, which no choice of units reaches (Davis & Goadrich
    2006): that is `trapezoid`. Higher is better; the chance level is the exact mean over random orders. NaN where all
    units are marked. Agreement with people says how plausible an explanation is, not whether it is what the model does.

    Args:
        scores: one score per unit.
        rationale: what people marked: (start, end) character ranges of the text, words or phrases of it, or one yes or
            no (1 or 0) per unit.
        resolution: scores closer than this share of the largest count as equal.

    Returns:
        Evidence with the area, `trapezoid` and the chance level.

    Raises:
        InputError: not one finite score per unit, or a rationale that does not fit the text.
    """
    given = judged(scores, rationale)
    found = average_precision(given.marked, given.scores, resolution)
    chance = chance_precision(given.marked)
    precision, recall, _ = precision_recall_curve(given.marked, given.scores)
    straight = float("nan") if np.isnan(found) else float(auc(recall, precision))
    return Evidence(
        "AUPRC",
        f"Scores set the {int(given.marked.sum())} units that people marked above the others with an area of "
        f"{found:.2f} (1 is best, {chance:.2f} chance).",
        {"value": found, "trapezoid": straight, "chance": chance},
    )
