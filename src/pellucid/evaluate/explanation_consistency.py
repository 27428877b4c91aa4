"""Explanation consistency: whether inputs with the same explanation are predicted the same."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pellucid.core.metadata import metric
from pellucid.core.params import Positive
from pellucid.core.results import Evidence, Scores
from pellucid.evaluate._same_explanation import agreement, highlights


@metric(rows=("EVF-9",), paper="arXiv:2202.00734", takes="dataset", produces="evidence", better="higher")
def explanation_consistency(
    scores: Sequence[Scores], predictions: Sequence[Any], *, top: Positive = 1, draws: Positive = 1000, seed: int = 0
) -> Evidence:
    """Return the chance that two inputs whose explanations show the same words have the same prediction.

    P(f(x') = f(x) given that x' has the explanation of x), the explanation being the set of the k highest units' texts
    (Dasgupta et al. 2022, arXiv:2202.00734). A mean over inputs that have a partner in the data, with a 95 % bootstrap
    interval. Higher is better; the chance level is that any other input has the same prediction. Explanations that no
    two inputs share say nothing: see `paired`.

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
    partners = [[j for j, other in enumerate(shown) if j != i and other == own] for i, own in enumerate(shown)]
    return agreement("explanation consistency", partners, predictions, draws, seed)
