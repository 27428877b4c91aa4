"""Token F1: how well the highest-scored units agree with what people marked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pellucid.core.metadata import metric
from pellucid.core.params import Array, Positive
from pellucid.core.results import Evidence, Scores
from pellucid.evaluate._rationale import chosen, expected, f1, judged


@metric(
    rows=("EVP-1", "EVP-2", "EVP-3"), paper="arXiv:1911.03429", takes="labels", produces="evidence", better="higher"
)
def token_f1(scores: Scores, rationale: Sequence[Any] | Array, *, top: Positive | None = None) -> Evidence:
    """Return the F1 of the chosen units against those that people marked, with precision and recall.

    DeYoung et al. 2020 (arXiv:1911.03429). Higher is better; the chance level is the mean over random choices of as
    many units, 2 k m / (n (k + m)) for k chosen and m marked of n units, which is exact. Agreement with people says how
    plausible an explanation is, not whether it is what the model does.

    Args:
        scores: one score per unit; units that oppose the target are chosen last.
        rationale: what people marked: (start, end) character ranges of the text, words or phrases of it, or one yes or
            no (1 or 0) per unit.
        top: number of units that the explanation chooses, the highest scores; None takes as many as people marked.

    Returns:
        Evidence with F1, precision, recall and the chance level of F1.

    Raises:
        InputError: not one finite score per unit, or a rationale that does not fit the text.
    """
    given = judged(scores, rationale)
    mask = chosen(given, top)
    hits = int((mask & given.marked).sum())
    precision, recall = hits / int(mask.sum()), hits / int(given.marked.sum())
    found, chance = f1(precision, recall), expected(given, top, "token", 0, 0)
    return Evidence(
        "token F1",
        f"{hits} of the {int(mask.sum())} highest-scored units are among the {int(given.marked.sum())} that people "
        f"marked: F1 {found:.2f} (1 is best, {chance:.2f} chance).",
        {"value": found, "precision": precision, "recall": recall, "chance": chance},
    )
