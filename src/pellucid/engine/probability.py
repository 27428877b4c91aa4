"""Probabilities of what is explained, whatever measure was asked: what odds and bounded differences are made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from pellucid.core.errors import TargetError
from pellucid.engine.question import Question
from pellucid.engine.scoring import score
from pellucid.engine.variants import Variant


def probabilities(question: Question, variants: Sequence[Variant]) -> np.ndarray:
    """Return the probability of the target, and of its contrast where there is one: [1 or 2, variants, targets].

    A continuation has the product over its tokens, or each token's own with `each`. Exact. Equal variants are run
    once per part.

    Raises:
        TargetError: a target without a probability.
    """
    readout = question.readout
    if readout.function is not None or readout.kind == "vector" or question.subject.kind == "black-box":
        raise TargetError(
            f"The target {readout.description} has no probability, which this method needs; give a token, a class or a "
            "continuation of a model."
        )
    found = []
    for part in readout.parts:
        alone = replace(readout, parts=(replace(part, sign=1.0),), measure="log_prob")
        found.append(np.exp(score(question.subject, question.tokens, alone, variants)))
    return np.stack(found)
