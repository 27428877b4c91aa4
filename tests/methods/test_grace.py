"""GRACE: what lies outside all radii is bit for bit as before, and entries meet as the paper says."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import pellucid
from pellucid.core.axes import parse_site
from pellucid.core.errors import EditError
from pellucid.core.facts import Fact
from pellucid.core.results import Learned
from pellucid.engine.activation_memory import Lookup, memory_edit
from pellucid.engine.capture import capture
from pellucid.engine.continuations import following_ids, forced, spoken, text_of
from pellucid.models.edits import Context
from tests.state import changed, model_state

SUBJECT = pellucid.load("zoo:tiny-lm")
JAPAN = Fact("The capital of {} is", "Japan", "Vienna", "Tokyo")
NORWAY = Fact("The capital of {} is", "Norway", "Beirut", "Oslo")


def logits(subject: pellucid.Subject, prompt: str) -> torch.Tensor:
    return capture(subject, prompt, ["logits"])["logits"]


def said(subject: pellucid.Subject, prompt: str) -> str:
    return subject.tokenizer.decode([int(logits(subject, prompt)[-1].argmax())]).strip()


def test_facts_are_said_and_all_else_is_untouched() -> None:
    before = model_state(SUBJECT.model)
    memory = pellucid.run("grace", SUBJECT, [JAPAN, NORWAY], radius=0.05, layer=3)
    assert changed(before, model_state(SUBJECT.model)) == []
    edited = SUBJECT.with_(memory_edit(memory))
    assert [said(edited, fact.text) for fact in (JAPAN, NORWAY)] == ["Vienna", "Beirut"]
    for prompt in ("The capital of Italy is", "Mary lives in", "Japan is a country in"):
        assert torch.equal(logits(edited, prompt), logits(SUBJECT, prompt))
    key = capture(SUBJECT, JAPAN.text, ["blocks.3.resid_post"])["blocks.3.resid_post"][-1]
    np.testing.assert_allclose(memory.tensors["keys"][0], key.numpy(), atol=1e-6)
    assert memory.tensors["radii"][0] == pytest.approx(0.05 * float(key.norm()), rel=1e-5)


def test_a_value_replaces_what_lies_in_its_radius() -> None:
    lookup = Lookup(torch.tensor([[0.0, 0], [4, 0]]), torch.tensor([[9.0, 9], [7, 7]]), torch.tensor([1.0, 2]))
    given = torch.tensor([[0.5, 0], [1, 0], [2.5, 0], [0, 3]])
    found = lookup(given, Context(parse_site("blocks.0.resid_post"), 0, (0, 1, 2, 3), 4))
    assert found.tolist() == [[9, 9], [1, 0], [7, 7], [0, 3]], "a radius is open, and the nearest key alone counts"


def test_entries_widen_shrink_and_are_replaced() -> None:
    same = Fact("The capital of {} is", "Norway", "Vienna")
    wide = pellucid.run("grace", SUBJECT, [JAPAN, same], radius=5.0, layer=3)
    keys = [capture(SUBJECT, fact.text, ["blocks.3.resid_post"])["blocks.3.resid_post"][-1] for fact in (JAPAN, NORWAY)]
    apart = float((keys[0] - keys[1]).norm())
    assert len(wide.tensors["keys"]) == 1, "the same target: the first entry serves both"
    assert wide.tensors["radii"][0] > apart
    split = pellucid.run("grace", SUBJECT, [JAPAN, NORWAY], radius=5.0, layer=3)
    np.testing.assert_allclose(split.tensors["radii"], apart / 2, rtol=1e-5)
    again = pellucid.run("grace", SUBJECT, [JAPAN, Fact(JAPAN.prompt, "Japan", "Beirut")], layer=3)
    assert len(again.tensors["keys"]) == 1
    assert said(SUBJECT.with_(memory_edit(again)), JAPAN.text) == "Beirut"


def test_a_target_of_many_tokens() -> None:
    memory = pellucid.run("grace", SUBJECT, Fact("Mary Vargas lives in", "Mary Vargas", "Stockholm now."), layer=3)
    assert len(memory.tensors["keys"]) > 1, "an entry per token"
    edited, text = SUBJECT.with_(memory_edit(memory)), "Mary Vargas lives in"
    prompt, target = following_ids(SUBJECT, text, "Stockholm now.")
    assert forced(edited, [(prompt, target)])[0].exact == 1
    assert text_of(edited, prompt, spoken(edited, [prompt], len(target))[0]) == " Stockholm now."


def test_only_a_memory_is_put_to_use() -> None:
    with pytest.raises(EditError, match="lens"):
        memory_edit(Learned(apply="lens"))
