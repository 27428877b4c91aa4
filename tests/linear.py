"""A model whose target is a sum over its words: `zoo:truth/majority` with removed words set to its blank."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

import numpy as np

import pellucid
from pellucid.models.saved import ZOO


class Linear(NamedTuple):
    """A prompt on the linear model: every signed attribution should equal `weights`, w (x - b) of each word."""

    subject: pellucid.Subject
    ids: list[int]
    target: int
    contrast: int
    blank: int
    weights: np.ndarray

    @property
    def asked(self) -> dict[str, Any]:
        """Return the arguments of the question."""
        return {"target": self.target, "contrast": self.contrast}


def linear(number: int = 7) -> Linear:
    """Return the `number`-th prompt. The logit difference is 10 (count of target - count of contrast) / length."""
    answer = json.loads((ZOO / "truth" / "majority" / "answer.json").read_text(encoding="utf-8"))
    item = answer["prompts"][number]
    ids, target, contrast = item["ids"], item["target"], item["contrast"]
    words = np.array(ids[1:])
    weights = 10.0 * ((words == target).astype(float) - (words == contrast)) / len(ids)
    subject = pellucid.load("zoo:truth/majority")
    return Linear(subject, ids, target, contrast, answer["replacement"], weights)
