"""A black box that adds up the weights of its words, and scores for them: what can be worked out by hand."""

from __future__ import annotations

from typing import Any

import numpy as np

import pellucid
from pellucid.core.results import Scores

WEIGHTS = {"a": 4.0, "b": 2.0, "c": 1.0, "d": -1.0}
PROMPT = "a b c d"


def additive(texts: list[str]) -> list[float]:
    return [sum(WEIGHTS.get(word, 0.0) for word in text.split()) for text in texts]


SUBJECT = pellucid.load(additive)
TRUE = pellucid.run("occlusion", SUBJECT, PROMPT, unit="word")


def scored(*values: float) -> Scores:
    """Return scores of the four words."""
    return Scores(values=np.array(values), axes=("unit",), tokens=TRUE.tokens, units=TRUE.units)


def values(name: str, scores: Scores, **more: Any) -> dict[str, float]:
    """Return what a metric says of scores of the four words."""
    return dict(pellucid.run(name, SUBJECT, PROMPT, scores=scores, **more).values)


def value(name: str, scores: Scores, **more: Any) -> float:
    return values(name, scores, **more)["value"]
