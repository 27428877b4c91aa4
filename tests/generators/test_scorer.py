"""A generator explained as a black box: the word that decides the answer gets the score."""

import math

import numpy as np
import pytest

import pellucid
from pellucid.core.errors import InputError
from pellucid.generators import ScriptedGenerator, choice_scorer


def judge(text: str) -> str:
    return "yes" if "good" in text else "no"


def test_occlusion_finds_the_word_that_decides() -> None:
    """The log-odds swing from +log(999) to -log(999) when the one decisive word goes."""
    subject = pellucid.load(choice_scorer(ScriptedGenerator(judge, 0.999), ("yes", "no"), template="{text}?"))
    found = pellucid.run("occlusion", subject, "a good film", target=0, contrast=1)
    swing = 2 * math.log(0.999 / 0.001)
    np.testing.assert_allclose(found.scores, [0, swing, 0], atol=1e-6)
    assert subject.capabilities == {"scores"}
    assert found.provenance.model == "scripted"


def test_a_template_without_a_place_is_refused() -> None:
    with pytest.raises(InputError, match="no place for the text"):
        choice_scorer(ScriptedGenerator(judge), ("yes", "no"), template="Is it good?")
