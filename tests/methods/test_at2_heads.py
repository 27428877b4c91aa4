"""AT2's training: on a model where one head alone tells which word matters, kept and used on another prompt."""

from pathlib import Path

import numpy as np
import pytest

import pellucid
from pellucid.core.errors import InputError
from pellucid.core.results import Learned
from pellucid.methods.attention.at2 import at2
from pellucid.methods.attention.at2_heads import at2_heads


def test_learned_once_it_predicts_removals_in_another_prompt(tmp_path: Path) -> None:
    """The constructed model looks up what followed the last word: only its induction head tells which word matters."""
    subject = pellucid.load("zoo:truth/induction")
    words = [
        "red blue green red",
        "gold pink red gold",
        "blue green blue green",
        "pink red gold red",
        "red pink blue pink",
    ]
    learned = at2_heads(subject, words, unit="token", replacement="pad", length=1, samples=48, held_out=16, seed=1)
    held_out = learned.evidence[0].values
    assert held_out["correlation"] > max(0.5, held_out["equal_weights"])
    opened = pellucid.open(learned.save(tmp_path / "heads"))
    assert isinstance(opened, Learned)
    np.testing.assert_array_equal(opened.tensors["theta"], learned.tensors["theta"])
    scores = at2(subject, "green gold blue green", unit="token", length=1, heads=opened).scores
    assert scores.argmax() == 1, "the answer is the word behind the earlier green"


def test_training_needs_prompts() -> None:
    with pytest.raises(InputError, match="no prompts"):
        at2_heads(pellucid.load("zoo:truth/induction"), [])
