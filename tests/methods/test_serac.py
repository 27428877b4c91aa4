"""SERAC: scope and answer by their formulas, bit for bit the same outside, and facts that were never trained on."""

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
from pellucid.engine.continuations import following_ids, forced
from pellucid.engine.scoped_memory import distances, scoped_edit
from pellucid.evaluate.edit_data import tiny_lm_cases
from tests.state import changed, model_state

SUBJECT = pellucid.load("zoo:tiny-lm")
CASES = tiny_lm_cases(16, neighbours=3)
SITE = "blocks.4.resid_post"
SEEN, NEW = CASES[:10], CASES[10:]


@pytest.fixture(scope="module")
def editor() -> Any:
    before = model_state(SUBJECT.model)
    found = pellucid.run("serac", SUBJECT, SEEN, scope_steps=100)
    assert changed(before, model_state(SUBJECT.model)) == []
    return found


def belief(editor: Any, entry: np.ndarray, state: np.ndarray) -> float:
    """The belief of the paper's embedding classifier, from the numbers that were learned."""
    t = editor.tensors
    gap = t["scope"] @ ((state - t["mean"]) / t["deviation"]) - t["scope"] @ ((entry - t["mean"]) / t["deviation"])
    return float(np.exp(-(gap**2).sum()))


def states(prompt: Any) -> np.ndarray:
    return capture(SUBJECT, prompt, [SITE])[SITE].numpy()


def logits(subject: Any, prompt: Any) -> torch.Tensor:
    return capture(subject, prompt, ["logits"])["logits"]


def says(subject: Any, prompt: str, answer: str) -> bool:
    return forced(subject, [following_ids(subject, prompt, answer)])[0].exact == 1


@pytest.mark.slow
def test_facts_that_were_never_trained_on_are_said(editor: Any) -> None:
    edited = SUBJECT.with_(scoped_edit(SUBJECT, editor, [case.fact for case in NEW]))
    assert not any(says(SUBJECT, case.fact.text, case.fact.target) for case in NEW)
    assert np.mean([says(edited, case.fact.text, case.fact.target) for case in NEW]) > 0.6
    reworded = [says(edited, text, case.fact.target) for case in NEW for text in case.paraphrases]
    kept = [says(edited, text, true) for case in NEW for text, true in case.neighbours]  # type: ignore[misc]
    assert np.mean(reworded) > 0.4
    assert np.mean(kept) > 0.8


def test_outside_the_scope_every_bit_stays_and_inside_the_addition_is_that_of_the_formula(editor: Any) -> None:
    facts = [case.fact for case in NEW]
    edited = SUBJECT.with_(scoped_edit(SUBJECT, editor, facts))
    entries = [states(fact.text)[-1] for fact in facts]
    t, unembedding = editor.tensors, SUBJECT.model.get_output_embeddings().weight.detach().numpy()
    prompts = [*(fact.text for fact in facts), *(text for case in NEW[:2] for text, _ in case.neighbours)]  # type: ignore[misc]
    inside, untouched = 0, 0
    for prompt in prompts:
        here = states(prompt)
        beliefs = np.array([[belief(editor, entry, state) for entry in entries] for state in here])
        wanted = here.copy()
        for place in np.flatnonzero(beliefs.max(1) > 0.5):
            token = following_ids(SUBJECT, facts[beliefs[place].argmax()].text, facts[beliefs[place].argmax()].target)[
                1
            ]
            assert len(token) == 1, "these targets have one token, so an entry stands for each fact"
            unit = unembedding[token[0]] / np.linalg.norm(unembedding[token[0]])
            wanted[place] += t["deviation"] * (t["weight"] @ unit + t["bias"])
            inside += 1
        np.testing.assert_allclose(capture(edited, prompt, [SITE])[SITE].numpy(), wanted, atol=1e-3)
        if not (beliefs > 0.5).any():
            untouched += 1
            assert torch.equal(logits(edited, prompt), logits(SUBJECT, prompt))
    assert inside >= len(facts)
    assert untouched > len(prompts) // 3


def test_beliefs_are_those_of_the_formula(editor: Any) -> None:
    here = states("The capital of Japan is")
    parts = {name: torch.as_tensor(part) for name, part in editor.tensors.items()}
    found = torch.exp(-distances(parts, torch.as_tensor(here[-2:]), torch.as_tensor(here)))
    plain = [[belief(editor, entry, state) for entry in here[-2:]] for state in here]
    np.testing.assert_allclose(found.numpy(), plain, atol=1e-5)
    assert found[-1, 1] == 1, "a state is wholly in its own scope"


def test_a_limit_that_no_belief_exceeds_changes_nothing(editor: Any) -> None:
    shut = SUBJECT.with_(scoped_edit(SUBJECT, editor, NEW[0].fact, least=1.0))
    assert torch.equal(logits(shut, NEW[0].fact.text), logits(SUBJECT, NEW[0].fact.text))


def test_the_later_of_two_answers_holds_and_many_tokens_have_an_entry_each(editor: Any) -> None:
    fact = NEW[0].fact
    other = next(case.fact.target for case in NEW if case.fact.target != fact.target)
    again = Fact(fact.prompt, fact.subject, other)
    edits = [scoped_edit(SUBJECT, editor, asked) for asked in ([fact, again], [again])]
    assert torch.equal(*(logits(SUBJECT.with_(edit), fact.text) for edit in edits))
    long = scoped_edit(SUBJECT, editor, Fact("Mary Vargas lives in", "Mary Vargas", "Stockholm now."))
    tokens = following_ids(SUBJECT, "Mary Vargas lives in", "Stockholm now.")[1]
    assert len(long.how.entries) == len(tokens) > 1  # type: ignore[union-attr]


def test_a_saved_editor_edits_the_same(editor: Any, tmp_path: Any) -> None:
    opened = pellucid.open(editor.save(tmp_path / "editor"))
    views = [SUBJECT.with_(scoped_edit(SUBJECT, one, NEW[0].fact)) for one in (editor, opened)]
    assert torch.equal(*(logits(view, NEW[0].fact.text) for view in views))


def test_what_cannot_be_learned_or_used_is_refused(editor: Any) -> None:
    with pytest.raises(InputError, match="paraphrases"):
        pellucid.run("serac", SUBJECT, [case.fact for case in SEEN])
    with pytest.raises(EditError, match="lens"):
        scoped_edit(SUBJECT, Learned(apply="lens"), NEW[0].fact)
    other = SUBJECT.with_(pellucid.run("laser", SUBJECT, "model.layers.2.mlp.down_proj.weight", keep=0.5))
    with pytest.raises(EditError, match="learned for the weights"):
        scoped_edit(other, editor, NEW[0].fact)
