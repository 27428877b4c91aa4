"""Pairwise rank agreement: how many pairs of parts two explanations put in the same order."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np

from pellucid.core.errors import InputError
from pellucid.core.metadata import metric
from pellucid.core.results import Evidence, Scores
from pellucid.evaluate._agreement import pair


@metric(
    rows=("ATT-16", "N-BM7"), paper="arXiv:2202.01602", takes="prompt", produces="evidence", better="higher", chance=0.5
)
def pairwise_rank_agreement(scores: Scores, other: Scores, *, parts: Sequence[int] | None = None) -> Evidence:
    """Return the share of pairs of parts that both explanations put in the same order of |score|.

    Krishna et al. 2022 (arXiv:2202.01602). A pair that is tied in one alone counts one half. Higher is better, 1 at
    best; random orders have 0.5. Exact.

    Args:
        scores: one explanation.
        other: another of the same input; all axes must agree.
        parts: indices of the parts of interest; None takes all.

    Returns:
        Evidence with the share and the number of pairs.

    Raises:
        InputError: explanations of different inputs, or values that are not finite, or fewer than two parts.
    """
    first, second = (np.abs(values) for values in pair(scores, other))
    chosen = list(range(len(first))) if parts is None else [int(part) for part in parts]
    if len(set(chosen)) < 2 or not all(0 <= part < len(first) for part in chosen):
        raise InputError(f"The parts {chosen} of {len(first)} hold no pair; name two or more of them.")
    alike = [
        1 - abs(np.sign(first[i] - first[j]) - np.sign(second[i] - second[j])) / 2
        for i, j in combinations(sorted(set(chosen)), 2)
    ]
    found = float(np.mean(alike))
    return Evidence(
        "pairwise rank agreement",
        f"The explanations order {100 * found:.0f} % of {len(alike)} pairs of parts alike (all is best, half is "
        "chance).",
        {"value": found, "pairs": float(len(alike))},
    )
