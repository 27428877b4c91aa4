"""Explanation sufficiency: whether inputs that hold the words of an explanation are predicted as it says."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pellucid.core.metadata import metric
from pellucid.core.params import Positive
from pellucid.core.results import Evidence, Scores
from pellucid.evaluate._same_explanation import agreement, highlights, texts


@metric(rows=("EVF-9",), paper="arXiv:2202.00734", takes="dataset", produces="evidence", better="higher")
def explanation_sufficiency(
    scores: Sequence[Scores], predictions: Sequence[Any], *, top: Positive = 1, draws: Positive = 1000, seed: int = 0
) -> Evidence:
    """Return the chance that an input which holds the words of another's explanation has the same prediction.

    P(f(x') = f(x) given that x' holds all texts of the k highest units of x) (Dasgupta et al. 2022, arXiv:2202.00734).
    A mean over inputs that have such a partner in the data, with a 95 % bootstrap interval. Higher is better; the
    chance level is that any other input has the same prediction.

    Args:
        scores: one explanation per input.
        predictions: what the model predicts for each input.
        top: number of units that an explanation shows.
        draws: of the bootstrap over inputs.
        seed: of the bootstrap.

    Returns:
        Evidence with the mean over inputs, its interval, its chance level and the share of inputs that have a partner.

    Raises:
        InputError: unequal numbers, or scores that are not one finite number per unit with a text.
    """
    shown = highlights(scores, predictions, top)
    words = [set(texts(one)) for one in scores]
    partners = [[j for j, other in enumerate(words) if j != i and own <= other] for i, own in enumerate(shown)]
    return agreement("explanation sufficiency", partners, predictions, draws, seed)
