"""Top-k Jaccard: the overlap of the k largest parts of two explanations, as intersection over union."""

from __future__ import annotations

import numpy as np
from scipy.stats import hypergeom

from pellucid.core.metadata import metric
from pellucid.core.params import Positive
from pellucid.core.results import Evidence, Scores
from pellucid.evaluate._agreement import largest, pair


@metric(rows=("ATT-16", "N-BM7"), paper="arXiv:2202.01602", takes="prompt", produces="evidence", better="higher")
def top_k_jaccard(scores: Scores, other: Scores, *, top: Positive = 3) -> Evidence:
    """Return |A and B| / |A or B| for the k largest parts by |score| of both explanations.

    The Jaccard form of feature agreement (Krishna et al. 2022, arXiv:2202.01602). Higher is better, 1 at best; the
    chance level is the exact mean over random orders. Exact.

    Args:
        scores: one explanation.
        other: another of the same input; all axes must agree.
        top: k; at most the number of parts.

    Returns:
        Evidence with the overlap and its chance level.

    Raises:
        InputError: explanations of different inputs, or values that are not finite.
    """
    first, second = pair(scores, other)
    count = min(top, len(first))
    shared = len(set(largest(first, count).tolist()) & set(largest(second, count).tolist()))
    hits = np.arange(count + 1)
    chances = hypergeom.pmf(hits, len(first), count, count)
    found, chance = shared / (2 * count - shared), float((chances * hits / (2 * count - hits)).sum())
    return Evidence(
        "top-k Jaccard",
        f"The {count} largest parts of both overlap by {found:.2f} (1 is best, {chance:.2f} chance).",
        {"value": found, "chance": chance, "top": float(count)},
    )
