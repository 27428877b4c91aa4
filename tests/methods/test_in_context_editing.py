"""Editing in context: what is told stands before the prompt, the nearest last, and nothing else changes."""

from __future__ import annotations

import pytest
import torch

import pellucid
from pellucid.core.errors import CapabilityError, InputError
from pellucid.core.facts import Fact
from pellucid.core.results import Examples
from pellucid.engine.capture import capture
from pellucid.engine.edit_cases import EditCase
from pellucid.engine.in_context import InContext, nearest, told
from pellucid.evaluate.edit_data import tiny_lm_cases
from pellucid.evaluate.edit_locality import edit_locality
from pellucid.evaluate.side_effects import side_effects
from pellucid.models.edits import Edit
from tests.tiny import TINY

SUBJECT = pellucid.load("zoo:tiny-lm")
JAPAN = Fact("The capital of {} is", "Japan", "Vienna", "Tokyo")
MARY = Fact("{} lives in", "Mary Vargas", "Oslo", "Vienna")
SHOWN = EditCase(
    Fact("The capital of {} is", "Peru", "Rome", "Lima"),
    ("Peru's capital is",),
    (("The capital of Chile is", "Santiago"),),
)


def test_the_texts_that_are_written() -> None:
    found = pellucid.run("in_context_editing", SUBJECT, [JAPAN, MARY], demonstrations=[SHOWN])
    texts = {item["kind"]: item["text"] for item in found.items}
    assert texts["copy"] == "New fact: The capital of Peru is Rome\nQuestion: The capital of Peru is Rome\n"
    assert texts["update"] == "New fact: The capital of Peru is Rome\nQuestion: Peru's capital is Rome\n"
    assert texts["retain"] == "New fact: The capital of Peru is Rome\nQuestion: The capital of Chile is Santiago\n"
    assert [item["text"] for item in found.items if item["kind"] == "fact"] == [
        "The capital of Japan is Vienna", "Mary Vargas lives in Oslo",
    ]  # fmt: skip


def test_shares_of_the_kinds() -> None:
    found = pellucid.run("in_context_editing", SUBJECT, JAPAN, demonstrations=tiny_lm_cases(8), count=16)
    kinds = [item["kind"] for item in found.items]
    assert [kinds.count(kind) for kind in ("copy", "update", "retain", "fact")] == [2, 6, 8, 1]


def test_a_prompt_is_read_behind_what_is_nearest_to_it() -> None:
    edit = pellucid.run("in_context_editing", SUBJECT, [JAPAN, MARY], demonstrations=[SHOWN])
    view = told(SUBJECT, edit, demonstrations=1)
    text = view.encode("Where does Mary Vargas live?").text
    assert text.endswith("New fact: Mary Vargas lives in Oslo\nQuestion: Where does Mary Vargas live?")
    assert view.encode("The capital of Chile is").text.startswith(SHOWN.fact.text) is False
    assert "Chile is Santiago" in view.encode("The capital of Chile is").text
    found = capture(view, "Mary Vargas lives in", ["logits"])["logits"]
    assert torch.equal(found, capture(SUBJECT, view.encode("Mary Vargas lives in"), ["logits"])["logits"])
    steered = view.with_(Edit("blocks.1.mlp.out", "zero"))
    assert isinstance(steered, InContext), "a context outlives further edits"


def test_without_a_context_all_is_as_before() -> None:
    silent = InContext(SUBJECT, lambda prompt: "")
    for prompt in ("The capital of Japan is", [5, 6, 7]):
        assert torch.equal(
            capture(silent, prompt, ["logits"])["logits"], capture(SUBJECT, prompt, ["logits"])["logits"]
        )
    assert side_effects(SUBJECT, silent, ["Mary lives in"]).values["value"] == 0


def test_metrics_compare_the_prompt_and_not_its_context() -> None:
    view = InContext(SUBJECT, lambda prompt: "Mary lives in Oslo. ")
    case = EditCase(JAPAN, (), (("The capital of Italy is", "Rome"),))
    kl = edit_locality(SUBJECT, view, [case], tokens=0).values["kl"]
    p, q = (capture(one, "The capital of Italy is", ["logits"])["logits"][-1].double().log_softmax(-1)
            for one in (SUBJECT, view))  # fmt: skip
    assert kl == pytest.approx(float((p.exp() * (p - q)).sum()), rel=1e-3)
    quiet = side_effects(SUBJECT, view, ["The capital of Italy is Rome."]).values
    assert quiet["perplexity"] != quiet["perplexity_before"]


def test_nearness() -> None:
    found = nearest(["the cat", "a dog"], ["cat", "dog", "fish"])
    assert found[0, 0] > found[0, 1] == 0
    assert found[1, 1] > found[1, 0] == 0
    assert (found[2] == 0).all()


def test_what_cannot_be_told_is_refused() -> None:
    with pytest.raises(InputError, match="No fact"):
        told(SUBJECT, Examples())
    with pytest.raises(CapabilityError, match="tokenizer"):
        InContext(pellucid.load(TINY["gpt2"]()), lambda prompt: "")
    with pytest.raises(InputError, match="plain text"):
        InContext(SUBJECT, lambda prompt: "").encode([{"role": "user", "content": "Hello"}])
