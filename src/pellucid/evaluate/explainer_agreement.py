"""Explainer agreement: whether two explanations rank the parts of an input alike."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.stats import kendalltau

from pellucid.core.metadata import metric
from pellucid.core.params import Fraction, Positive
from pellucid.core.results import Evidence, Scores
from pellucid.evaluate._agreement import pair
from pellucid.evaluate._ranking import settled


@metric(rows=("ATT-16",), paper="arXiv:2105.03287", takes="prompt", produces="evidence", better="higher", chance=0)
def explainer_agreement(
    scores: Scores, other: Scores, *, top: Positive = 3, absolute: bool = False, resolution: Fraction = 0.02
) -> Evidence:
    """Return Kendall's tau between the rankings of two methods, and how many of their k highest parts are the same.

    tau-b counts pairs ranked alike less pairs ranked the other way, 1 to -1, 0 on average for rankings that have
    nothing to do with each other; it is NaN where one explanation is constant. Overlap is |top k of one and of the
    other| / k, by chance k / parts; sign agreement is over the parts in both. High agreement does not make either
    right, nor does low agreement make either wrong (Neely et al. 2021, arXiv:2105.03287; Krishna et al. 2022,
    arXiv:2202.01602).

    Args:
        scores: one explanation.
        other: another of the same input; all axes must agree.
        top: k; at most the number of parts.
        absolute: compare sizes, for methods of which one has no sign.
        resolution: scores closer than this share of the largest are ties, so that parts which do not matter are not
            ranked by noise.

    Returns:
        Evidence with tau (`value`), its p-value, the overlap and its chance level, and sign agreement.

    Raises:
        InputError: explanations of different inputs, or values that are not finite.
    """
    given = pair(scores, other)
    first, second = (settled(np.abs(values) if absolute else values, resolution) for values in given)
    varied = first.size > 1 and np.ptp(first) > 0 and np.ptp(second) > 0
    found: Any = kendalltau(first, second) if varied else (float("nan"), float("nan"))
    tau, chance = float(found[0]), float(found[1])
    count = min(top, first.size)
    highest = [set(np.argsort(-values, kind="stable")[:count].tolist()) for values in (first, second)]
    both = sorted(highest[0] & highest[1])
    signs = float(np.mean(np.sign(given[0][both]) == np.sign(given[1][both]))) if both else float("nan")
    overlap = len(both) / max(count, 1)
    names = [result.provenance.method or "unnamed" for result in (scores, other)]
    return Evidence(
        "explainer agreement",
        f"{names[0]} and {names[1]} rank the {first.size} parts with Kendall tau {tau:.2f} and share {len(both)} of "
        f"their {count} highest ({100 * count / max(first.size, 1):.0f} % would be shared by chance).",
        {
            "value": tau,
            "p_value": chance,
            "top_overlap": overlap,
            "top_overlap_chance": count / max(first.size, 1),
            "sign_agreement": signs,
        },
    )
