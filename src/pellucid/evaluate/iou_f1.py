"""IOU F1: how well runs of highest-scored units agree with the passages that people marked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pellucid.core.metadata import metric
from pellucid.core.params import Array, Count, Positive
from pellucid.core.results import Evidence, Scores
from pellucid.evaluate._rationale import chosen, expected, judged, span_scores, spans


@metric(rows=("EVP-1", "EVP-2"), paper="arXiv:1911.03429", takes="labels", produces="evidence", better="higher")
def iou_f1(
    scores: Scores, rationale: Sequence[Any] | Array, *, top: Positive | None = None, draws: Count = 200, seed: int = 0
) -> Evidence:
    """Return the F1 of runs of chosen units against runs of marked ones.

    A run is found where its intersection over union with one of the other side is 0.5 or more (DeYoung et al. 2020,
    arXiv:1911.03429; toolkits that compare single tokens or one set of all tokens by IoU measure something else).
    Higher is better; the chance level is the mean over random choices of as many units. Agreement with people says how
    plausible an explanation is, not whether it is what the model does. Exact, the chance level from `draws`.

    Args:
        scores: one score per unit; units that oppose the target are chosen last.
        rationale: what people marked: (start, end) character ranges of the text, words or phrases of it, or one yes or
            no (1 or 0) per unit.
        top: number of units that the explanation chooses, the highest scores; None takes as many as people marked.
        draws: random choices for the chance level.
        seed: of the random choices.

    Returns:
        Evidence with F1, precision, recall and the chance level of F1.

    Raises:
        InputError: not one finite score per unit, or a rationale that does not fit the text.
    """
    given = judged(scores, rationale)
    mask = chosen(given, top)
    precision, recall, found = span_scores(mask, given.marked)
    chance = expected(given, top, "span", draws, seed)
    return Evidence(
        "IOU F1",
        f"{len(spans(mask))} chosen and {len(spans(given.marked))} marked passages agree with F1 {found:.2f} (1 is "
        f"best, {chance:.2f} chance).",
        {"value": found, "precision": precision, "recall": recall, "chance": chance},
    )
