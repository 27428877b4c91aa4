"""Signed rank agreement: how many of their k largest parts agree in rank and sign."""

from __future__ import annotations

import numpy as np

from pellucid.core.metadata import metric
from pellucid.core.params import Positive
from pellucid.core.results import Evidence, Scores
from pellucid.evaluate._agreement import compared


@metric(rows=("ATT-16", "N-BM7"), paper="arXiv:2202.01602", takes="prompt", produces="evidence", better="higher")
def signed_rank_agreement(scores: Scores, other: Scores, *, top: Positive = 3) -> Evidence:
    """Return the share of the k largest parts by |score| that agree in rank and in sign.

    Krishna et al. 2022 (arXiv:2202.01602). Higher is better, 1 at best; the chance level is the exact mean over random
    orders of either, signs kept with their scores. Exact.

    Args:
        scores: one explanation.
        other: another of the same input; all axes must agree.
        top: k; at most the number of parts.

    Returns:
        Evidence with the share and its chance level.

    Raises:
        InputError: explanations of different inputs, or values that are not finite.
    """

    def alike(first: np.ndarray, second: np.ndarray) -> np.ndarray:
        result: np.ndarray = np.eye(first.shape[0], dtype=bool) & (first == second)
        return result

    return compared("signed rank agreement", scores, other, top, alike)
