"""Ranking correlation: whether two explanations rank all parts alike, by Spearman's correlation."""

from __future__ import annotations

from pellucid.core.metadata import metric
from pellucid.core.params import Fraction
from pellucid.core.results import Evidence, Scores
from pellucid.evaluate._agreement import pair
from pellucid.evaluate._ranking import rank_correlation


@metric(
    rows=("ATT-16", "N-BM7"), paper="arXiv:2202.01602", takes="prompt", produces="evidence", better="higher", chance=0
)
def ranking_correlation(scores: Scores, other: Scores, *, resolution: Fraction = 0.001) -> Evidence:
    """Return Spearman's correlation of two explanations over all parts.

    Krishna et al. 2022 (arXiv:2202.01602); Kendall's tau is `explainer_agreement`. Higher is better, 1 at best; random
    orders have 0 on average. NaN where the first explanation is constant, 0 where the other is. Exact.

    Args:
        scores: one explanation.
        other: another of the same input; all axes must agree.
        resolution: scores closer than this share of the largest count as equal.

    Returns:
        Evidence with the correlation.

    Raises:
        InputError: explanations of different inputs, or values that are not finite.
    """
    found = rank_correlation(*pair(scores, other), resolution)
    return Evidence(
        "ranking correlation",
        f"The explanations rank the parts with a Spearman correlation of {found:.2f} (1 is best, 0 chance).",
        {"value": found},
    )
