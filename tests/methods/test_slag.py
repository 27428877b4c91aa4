"""SLAG: updates by hand on models changed before, sequences of facts, and paraphrases that follow."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

import pellucid
from pellucid.core.errors import EditError, InputError
from pellucid.core.results import Learned, WeightEdit
from pellucid.engine.belief_updates import nothing, update_beliefs, updated
from pellucid.engine.continuations import following_ids, forced
from pellucid.engine.edit_factors import edit_factors, rows_of
from pellucid.engine.edit_texts import edit_texts
from pellucid.engine.hyper_editor import APPLY, changes, hyper_write, network_of, requests
from pellucid.evaluate.edit_data import tiny_lm_cases
from tests.state import changed, model_state

SUBJECT = pellucid.load("zoo:tiny-lm")
CASES = tiny_lm_cases(11, neighbours=2)
NEW = [case.fact for case in CASES[8:]]
NAME = "model.layers.2.mlp.down_proj.weight"


@pytest.fixture(scope="module")
def editor() -> Any:
    before = model_state(SUBJECT.model)
    found = pellucid.run("slag", SUBJECT, CASES[:8], steps=15, sequence=2, updates=2)
    assert changed(before, model_state(SUBJECT.model)) == []
    return found


def says(subject: Any, prompt: str, answer: str) -> bool:
    return forced(subject, [following_ids(subject, prompt, answer)])[0].exact == 1


def test_one_update_is_that_of_the_knowledge_editor(editor: Any) -> None:
    found = update_beliefs(SUBJECT, editor, NEW[0], times=1)
    same = hyper_write(SUBJECT, replace(editor, apply=APPLY), NEW[0])
    for name in found.names:
        np.testing.assert_allclose(found.delta(name), same.delta(name), atol=1e-6)
    assert np.abs(found.delta(NAME)).max() > 1e-4


def test_a_second_update_takes_the_gradient_of_the_changed_model(editor: Any) -> None:
    network, matrices = network_of(SUBJECT, editor)
    [request], [row] = requests(SUBJECT, NEW[:1]), rows_of(SUBJECT, NEW[:1])
    found, made = updated(SUBJECT, network, matrices, (request, row), nothing(SUBJECT, matrices), 2)
    assert made == 2
    with torch.no_grad():
        one = changes(SUBJECT, network, request, edit_factors(SUBJECT, [row], matrices)[0], matrices)
        edit = WeightEdit(deltas={m.name: change.numpy() for m, change in zip(matrices, one, strict=True)})
        there = edit_factors(SUBJECT.with_(edit), [row], matrices)[0]
        two = changes(SUBJECT, network, request, there, matrices)
    for total, a, b in zip([change.detach() for change in found], one, two, strict=True):
        np.testing.assert_allclose(total.numpy(), (a + b).numpy(), atol=2e-3 * float(total.abs().max()))
    assert float((one[0] - two[0]).norm() / one[0].norm()) > 0.05, "the gradient has moved"


def test_facts_never_trained_on_are_updated_in_sequence(editor: Any) -> None:
    before = model_state(SUBJECT.model)
    edit = update_beliefs(SUBJECT, editor, NEW, times=8)
    assert changed(before, model_state(SUBJECT.model)) == []
    edited = SUBJECT.with_(edit)
    said = [says(edited, fact.text, fact.target) for fact in NEW]
    assert not any(says(SUBJECT, fact.text, fact.target) for fact in NEW)
    assert np.mean(said) > 0.6
    account = edit.evidence[0].values
    assert account["said"] == pytest.approx(np.mean(said))
    assert 1 <= account["updates"] <= 8


def test_an_answer_that_is_said_already_takes_no_update(editor: Any) -> None:
    known = pellucid.Fact(CASES[0].fact.prompt, CASES[0].fact.subject, CASES[0].fact.true)
    found = update_beliefs(SUBJECT, editor, known)
    assert not any(found.delta(name).any() for name in found.names)
    assert found.evidence[0].values == {"updates": 0, "said": 1}


def test_training_judges_wordings_and_what_follows() -> None:
    texts = edit_texts(SUBJECT, CASES[:4])
    for i, case in enumerate(CASES[:4]):
        assert [row.ids[: row.prompt] for row in texts.worded[i]] == [
            SUBJECT.encode(text).ids for text in (case.fact.text, *case.paraphrases)
        ]
        assert len(texts.following[i]) == sum(map(len, case.consequences.values()))
        assert SUBJECT.encode(case.fact.text).ids not in texts.kept[i]
        assert SUBJECT.encode(CASES[(i + 1) % 4].fact.text).ids in texts.kept[i]
    some = next(iter(texts.before))
    plain = SUBJECT.model(torch.tensor([some])).logits[0, -1].log_softmax(-1)
    torch.testing.assert_close(texts.before[some], plain.detach(), atol=1e-3, rtol=1e-3)


def test_the_loss_falls_and_paraphrases_follow(editor: Any) -> None:
    assert editor.evidence[0].ok is True
    shares = []
    for case in CASES[8:]:
        edited = SUBJECT.with_(update_beliefs(SUBJECT, editor, case.fact, times=8))
        pairs = [following_ids(SUBJECT, text, case.fact.target) for text in case.paraphrases]
        shares += [now.probability > was.probability + 0.1 for now, was in
                   zip(forced(edited, pairs), forced(SUBJECT, pairs), strict=True)]  # fmt: skip
    assert np.mean(shares) > 0.3


def test_a_saved_optimiser_updates_the_same(editor: Any, tmp_path: Any) -> None:
    opened = pellucid.open(editor.save(tmp_path / "editor"))
    found = (update_beliefs(SUBJECT, one, NEW[:2]).delta(NAME) for one in (editor, opened))
    np.testing.assert_array_equal(*found)


def test_what_cannot_be_trained_or_used_is_refused(editor: Any) -> None:
    with pytest.raises(InputError, match="a dozen"):
        pellucid.run("slag", SUBJECT, CASES[:1])
    with pytest.raises(EditError, match="lens"):
        update_beliefs(SUBJECT, Learned(apply="lens"), NEW[0])
    other = SUBJECT.with_(pellucid.run("laser", SUBJECT, NAME, keep=0.5))
    with pytest.raises(EditError, match="learned for the weights"):
        update_beliefs(other, editor, NEW[0])
