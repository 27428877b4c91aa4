"""Small runs that the tests of this folder share."""

from __future__ import annotations

import random
from typing import Any

from pellucid.zoo.reviews import review

METHODS = ("occlusion", "gradient_x_input", "attention_rollout")
METRICS = ("comprehensiveness", "leave_one_out_correlation", "token_f1", "feature_agreement")
ASKED: dict[str, Any] = {"measure": "prob", "orders": 3, "settings": {"feature_agreement": {"top": 3}}}


def reviews(count: int, seed: int = 0) -> list[dict[str, Any]]:
    """Return generated reviews with their label and, as character ranges, the words that decide it."""
    rng, rows = random.Random(seed), []
    while len(rows) < count:
        made = review(rng, True)
        starts = _starts(made.text, made.words)
        marked = [(starts[place], starts[place] + len(made.words[place])) for place in made.rationale()]
        rows.append({"text": made.text, "label": int(made.verdict() > 0), "rationale": marked})
    return rows


def _starts(text: str, words: tuple[str, ...]) -> list[int]:
    found, at = [], 0
    for word in words:
        at = text.lower().index(word, at)
        found.append(at)
        at += len(word)
    return found
