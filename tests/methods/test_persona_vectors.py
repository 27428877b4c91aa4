"""Persona vectors: means over reply tokens by hand, judged replies, and a trait of the zoo's model."""

from __future__ import annotations

import numpy as np
import pytest

import pellucid
from pellucid.core.errors import InputError
from pellucid.engine.capture import capture
from pellucid.engine.generation import greedy
from pellucid.methods.steering.persona_vectors import _prompt, persona_vectors

QUESTIONS = ["Review: What an amazing film! Sentiment:", "The meal was boring. Sentiment:"]
TOWARDS, AWAY = ["This film was excellent."], ["This film was awful."]


@pytest.fixture(scope="module")
def subject() -> pellucid.Subject:
    """Load the zoo's language model once."""
    return pellucid.load("zoo:tiny-lm")


def test_is_the_difference_of_means_over_the_replies(subject: pellucid.Subject) -> None:
    found = persona_vectors(subject, QUESTIONS, TOWARDS, AWAY, length=3, layers=[2])
    means = []
    for instruction in (TOWARDS[0], AWAY[0]):
        rows = []
        for question in QUESTIONS:
            tokens = subject.encode(_prompt(subject, instruction, question))
            ids = [*tokens.ids, *greedy(subject, tokens, 3)]
            rows.append(capture(subject, ids, ["blocks.2.resid_post"])["blocks.2.resid_post"][len(tokens) :].mean(0))
        means.append(np.mean([row.numpy() for row in rows], 0))
    gap = means[0] - means[1]
    np.testing.assert_allclose(found.tensors["directions"][0], gap / np.linalg.norm(gap), atol=1e-4)
    assert found.evidence[1].values == {"towards": 2.0, "away": 2.0, "asked": 4.0}


def test_a_judge_keeps_what_shows_the_trait(subject: pellucid.Subject) -> None:
    seen: list[str] = []

    def judge(question: str, reply: str) -> float:
        seen.append(reply)
        return 1.0 if len(seen) in (1, 2, 3) else 0.0

    found = persona_vectors(subject, QUESTIONS, TOWARDS, AWAY, judge=judge, length=2, layers=[2])
    assert len(seen) == 4
    assert found.evidence[1].values["towards"] == 2
    assert found.evidence[1].values["away"] == 1
    with pytest.raises(InputError, match="The judge kept 0 of 2"):
        persona_vectors(subject, QUESTIONS, TOWARDS, AWAY, judge=lambda question, reply: 0.0, length=1)
