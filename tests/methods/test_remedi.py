"""REMEDI: the edit by its formula, the map by what it does to its loss, and the model left as it was."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import pellucid
from pellucid.core.errors import EditError, InputError
from pellucid.core.facts import Fact
from pellucid.core.results import Learned
from pellucid.engine.capture import capture
from pellucid.engine.entity_edits import attribute_vectors, described, entity_edit
from pellucid.evaluate.edit_data import tiny_lm_cases
from pellucid.evaluate.edit_efficacy import edit_efficacy
from tests.state import changed, model_state

SUBJECT = pellucid.load("zoo:tiny-lm")
CASES = tiny_lm_cases(8, neighbours=1)
SITE = "blocks.1.resid_post"


@pytest.fixture(scope="module")
def editor() -> Any:
    before = model_state(SUBJECT.model)
    found = pellucid.run("remedi", SUBJECT, CASES, layer=1, steps=40, rate=1e-2)
    assert changed(before, model_state(SUBJECT.model)) == []
    return found


def test_training_lowers_the_loss_and_gives_entities_their_attributes(editor: Any) -> None:
    assert editor.evidence[0].ok is True
    gains = [
        edit_efficacy(SUBJECT, SUBJECT.with_(entity_edit(SUBJECT, editor, case.fact)), [case], tokens=0).values
        for case in CASES
    ]
    assert np.mean([one["magnitude_change"] for one in gains]) > 0.3, "p(new) - p(true) begins near -1"


def test_the_edit_adds_the_mapped_attribute_at_the_last_token_of_the_entity(editor: Any) -> None:
    fact = Fact("{} lives in", "Mary Vargas", "Stockholm")
    view = SUBJECT.with_(entity_edit(SUBJECT, editor, fact))
    before, after = (capture(one, fact.text, [SITE])[SITE] for one in (SUBJECT, view))
    statement = SUBJECT.encode("Mary Vargas lives in Stockholm")
    start = len(SUBJECT.encode(fact.text))
    attribute = capture(SUBJECT, list(statement.ids), [SITE])[SITE][start:].mean(0).numpy()
    gap = (after - before).numpy()
    place = SUBJECT.encode("Mary Vargas").ids
    moved = np.flatnonzero(np.abs(gap).max(1) > 1e-6)
    assert moved.tolist() == [len(place) - 1]
    np.testing.assert_allclose(gap[moved[0]], editor.tensors["weight"] @ attribute + editor.tensors["bias"], atol=1e-4)
    found = attribute_vectors(SUBJECT, described(SUBJECT, [fact]), SITE)[0]
    np.testing.assert_allclose(found.numpy(), attribute, atol=1e-5)


def test_another_prompt_about_the_entity(editor: Any) -> None:
    fact = Fact("{} lives in", "Mary Vargas", "Stockholm")
    edit = entity_edit(SUBJECT, editor, fact, prompt="The home of Mary Vargas is in")
    own = entity_edit(SUBJECT, editor, fact)
    assert torch.equal(edit.value, own.value)  # type: ignore[arg-type]
    assert edit.where != own.where
    with pytest.raises(InputError, match="lacks its subject"):
        entity_edit(SUBJECT, editor, fact, prompt="The home of Peter is in")


def test_what_cannot_be_learned_or_used_is_refused() -> None:
    with pytest.raises(InputError, match="a dozen"):
        pellucid.run("remedi", SUBJECT, CASES[:1])
    with pytest.raises(EditError, match="lens"):
        entity_edit(SUBJECT, Learned(apply="lens"), CASES[0].fact)
