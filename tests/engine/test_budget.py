"""What a budget chooses: fewer samples, then coarser units, or a refusal before anything runs."""

from __future__ import annotations

import functools
import json
import time
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import transformers

import pellucid
from pellucid.core.cost import evaluate_cost
from pellucid.core.errors import InputError, ResourceError
from pellucid.engine import budget, sharing, store, trie
from pellucid.engine.planning import Estimate
from pellucid.engine.question import ask
from pellucid.methods import estimate, find
from tests import plain
from tests.tiny import TINY
from tests.tokenizers_for_tests import byte_level

PROMPT = "Hello worldwide theory of Paris. Parisian worlds. Hello otherworldly themes."


@pytest.fixture
def subject() -> pellucid.Subject:
    tokenizer = byte_level()
    config = transformers.LlamaConfig(
        hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2, vocab_size=len(tokenizer),
        pad_token_id=0,
    )  # fmt: skip
    return pellucid.load(transformers.LlamaForCausalLM(config).eval(), tokenizer)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """Let a row forward be estimated at so many seconds, and a row backward at twice as many."""
    speed = {"row": 1.0}

    def estimated(
        subject: Any,
        cost: str,
        counts: Any,
        tokens: int,
        *,
        targets: int = 1,
        gradients: int = 1,
        share: float = 1.0,
        tokens_per_batch: int | None = None,
    ) -> Estimate:
        forwards, backwards = evaluate_cost(cost, counts)
        return Estimate((share * forwards + 2 * backwards) * speed["row"], 0.0, forwards, backwards)

    monkeypatch.setattr(budget, "estimate", estimated)
    monkeypatch.setattr(budget, "grid_share", lambda *_: 1.0)
    monkeypatch.setattr(budget, "walk", lambda *_: None)
    return speed


def chosen(subject: pellucid.Subject, method: str, seconds: float, **given: Any) -> dict[str, Any]:
    entry = find(method)
    return dict(budget.choose(entry, budget.question_of(entry, subject, [PROMPT], given), given, seconds).chosen)


def test_what_fits_runs_as_asked_and_says_so(subject: pellucid.Subject, clock: dict[str, float]) -> None:
    found = pellucid.run("shapley_values", subject, PROMPT, target=7, budget=1e6)
    asked = pellucid.run("shapley_values", subject, PROMPT, target=7)
    np.testing.assert_array_equal(found.scores, asked.scores)
    (said,) = [evidence for evidence in found.evidence if evidence.name == "budget"]
    assert "was run as asked" in said.summary
    assert said.values["budget"] == 1e6
    assert said.ok


def test_samples_are_lowered_before_units_are_made_coarser(subject: pellucid.Subject, clock: dict[str, float]) -> None:
    tokens, words = (len(ask(subject, PROMPT, target=7, unit=unit).units) for unit in ("token", "word"))
    assert words < tokens

    def cost(orders: int, units: int) -> float:
        return orders * (units + 1) + 2

    assert chosen(subject, "shapley_values", cost(24, tokens)) == {}
    assert chosen(subject, "shapley_values", cost(24, tokens) - 1) == {"permutations": 12}
    assert chosen(subject, "shapley_values", cost(12, tokens) - 1) == {"permutations": 6}
    assert chosen(subject, "shapley_values", cost(6, tokens) - 1)["unit"] == "word"
    sentences = len(ask(subject, PROMPT, target=7, unit="sentence").units)
    assert sentences < words
    assert chosen(subject, "shapley_values", cost(4, sentences)) == {"unit": "sentence", "permutations": 4}
    with pytest.raises(ResourceError, match=r"given .* s, but takes about .* with unit='sentence' and permutations=4"):
        chosen(subject, "shapley_values", cost(4, sentences) - 1)


def test_what_the_user_gave_stays(subject: pellucid.Subject, clock: dict[str, float]) -> None:
    assert "permutations" not in chosen(subject, "shapley_values", 300, permutations=24)
    assert "unit" not in chosen(subject, "shapley_values", 300, unit="token")
    with pytest.raises(ResourceError, match="raise the budget"):
        chosen(subject, "shapley_values", 20, permutations=24, unit="token")


def test_a_refusal_runs_nothing(subject: pellucid.Subject, clock: dict[str, float]) -> None:
    with subject.recorded() as record, pytest.raises(ResourceError) as caught:
        pellucid.run("occlusion", subject, PROMPT, target=7, budget=0.5)
    assert record.forwards == 0
    assert str(caught.value).count(". ") == 0
    with subject.recorded() as record, pytest.raises(ResourceError):
        pellucid.explain(subject, PROMPT, target=7, methods=["occlusion"], budget=0.5)
    assert record.forwards == 0


def test_the_result_is_that_of_the_form_which_the_evidence_names(
    subject: pellucid.Subject, clock: dict[str, float]
) -> None:
    found = pellucid.run("integrated_gradients", subject, PROMPT, target=7, budget=30)
    said = next(evidence for evidence in found.evidence if evidence.name == "budget")
    steps = found.provenance.parameters["steps"]
    assert steps == 8
    assert "steps=8" in said.summary
    same = pellucid.run("integrated_gradients", subject, PROMPT, target=7, steps=8)
    np.testing.assert_array_equal(found.scores, same.scores)


def test_a_sequence_of_prompts_shares_the_budget(subject: pellucid.Subject, clock: dict[str, float]) -> None:
    alone = pellucid.run("integrated_gradients", subject, PROMPT, target=7, budget=110)
    first, second = pellucid.run("integrated_gradients", subject, [PROMPT, PROMPT], target=7, budget=110)
    assert alone.provenance.parameters["steps"] == 32
    assert first.provenance.parameters["steps"] == second.provenance.parameters["steps"] == 16


def test_explain_takes_one_unit_for_all_methods_and_says_what_it_did(
    subject: pellucid.Subject, clock: dict[str, float]
) -> None:
    methods = ["occlusion", "integrated_gradients"]
    units = len(ask(subject, PROMPT, target=7, unit="word").units)
    found = pellucid.explain(subject, PROMPT, target=7, methods=methods, budget=(units + 2) * 3)
    assert {result.provenance.parameters["unit"] for result in found.results} == {"word"}
    assert [len(result.values) for result in found.results] == [units, units]
    assert any(note.startswith("The unit is word") for note in found.notes)
    assert any("integrated_gradients was run with steps=" in note for note in found.notes)


def test_explain_leaves_out_what_does_not_fit(subject: pellucid.Subject, clock: dict[str, float]) -> None:
    sentences = len(ask(subject, PROMPT, target=7, unit="sentence").units)
    found = pellucid.explain(
        subject, PROMPT, target=7, methods=["occlusion", "sequential_integrated_gradients"],
        budget=(sentences + 2) * 3,
    )  # fmt: skip
    assert [result.provenance.method for result in found.results] == ["occlusion"]
    assert any(note.startswith("Left out: sequential_integrated_gradients was given") for note in found.notes)


def test_what_cannot_be_estimated_is_refused(subject: pellucid.Subject) -> None:
    entry = replace(find("occlusion"), takes="dataset")
    with pytest.raises(InputError, match="is given dataset and not a prompt"):
        budget.question_of(entry, subject, [[PROMPT]], {})
    entry = replace(find("occlusion"), cost="")
    with pytest.raises(InputError, match="does not state its cost"):
        budget.price(entry, ask(subject, PROMPT, target=7), {})
    with pytest.raises(InputError, match="budget must be a number above 0"):
        pellucid.run("occlusion", subject, PROMPT, budget=0)


@functools.cache
def tiny_llama() -> pellucid.Subject:
    return pellucid.load(TINY["llama"]())


METHODS = [entry["name"] for entry in pellucid.methods() if entry["kind"] == "method" and entry["takes"] == "prompt"]


@pytest.mark.parametrize("method", METHODS)
def test_every_method_that_takes_a_prompt_has_a_price(method: str, clock: dict[str, float]) -> None:
    """No list of methods: what a method states of itself is enough."""
    entry = find(method)
    if not entry.cost:
        pytest.skip(f"{method} states no cost")
    question = ask(tiny_llama(), plain.IDS, target=plain.TARGET)
    assert budget.price(entry, question, {}).forwards > 0


def test_a_pair_has_a_price(clock: dict[str, float]) -> None:
    subject = tiny_llama()
    pair = pellucid.Pair(plain.IDS, [11, 42, 8, 23, 64, 5])
    found = estimate("activation_patching", subject, pair, target=plain.TARGET)
    ran = pellucid.run("activation_patching", subject, pair, target=plain.TARGET)
    assert ran.provenance.forwards <= found.forwards <= ran.provenance.forwards + 4


def test_a_black_box_is_timed_on_one_call() -> None:
    def slow(texts: list[str]) -> list[float]:
        time.sleep(0.02 * len(texts))
        return [float(len(text)) for text in texts]

    subject = pellucid.load(slow)
    found = estimate("occlusion", subject, "one two three", target=0)
    assert found.seconds > 0.07  # four calls of at least 0.02 s
    with pytest.raises(ResourceError):
        pellucid.run("occlusion", subject, "one two three", target=0, budget=0.03)


@pytest.mark.parametrize("replacement", ["delete", 3])
def test_shared_prefixes_are_estimated_as_they_are_computed(replacement: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The batches that a walk foresees are those that are run, and so are the keys and values that they keep."""
    subject = tiny_llama()
    prompt = [5 + (7 * i) % 90 for i in range(60)]
    question = ask(subject, prompt, target=plain.TARGET)
    found = sharing.walk(find("occlusion"), question, 61, {"replacement": replacement})
    assert found is not None
    ran: list[tuple[int, int]] = []
    native = trie.continue_rows

    def continue_rows(subject: Any, past: Any, tails: Any, *rest: Any, last: bool, head: bool) -> Any:
        ran.append((len(tails), max(len(tail.ids) for tail in tails)))
        return native(subject, past, tails, *rest, last=last, head=head)

    monkeypatch.setattr(trie, "continue_rows", continue_rows)
    with store.unused():
        pellucid.run("occlusion", subject, prompt, target=plain.TARGET, replacement=replacement)
    foreseen = sum(rows * tokens for rows, tokens, _ in found.batches)
    assert foreseen == pytest.approx(sum(rows * tokens for rows, tokens in ran), rel=0.1)
    assert foreseen < 0.7 * 61 * 60
    assert len(found.batches) == len(ran)


def test_what_shares_nothing_is_not_walked() -> None:
    question = ask(tiny_llama(), plain.IDS, target=plain.TARGET)
    assert sharing.walk(find("occlusion"), question, 7, {"replacement": "zero"}) is None
    assert sharing.walk(find("integrated_gradients"), question, 34, {}) is None
    assert sharing.grid_share(find("occlusion"), question) == 1
    assert sharing.grid_share(find("activation_patching"), question) < 0.6  # a quarter, on a grid of 2 x 6 more


@pytest.mark.slow
def test_the_command_line_estimates_and_keeps_to_a_budget(capsys: pytest.CaptureFixture[str]) -> None:
    from pellucid.cli import main

    assert main(["run", "occlusion", "Hello there", "--estimate"]) == 0
    said = capsys.readouterr().out
    assert "occlusion would take about" in said
    assert "forwards" in said
    assert main(["run", "occlusion", "Hello there", "--estimate", "--json"]) == 0
    assert set(json.loads(capsys.readouterr().out)) == {"seconds", "bytes", "forwards", "backwards"}
    assert main(["run", "occlusion", "Hello there", "--budget", "1e-9"]) != 0
    assert "was given 1e-09 s" in capsys.readouterr().err
    assert main(["run", "occlusion", "Hello there", "--budget", "60", "--json"]) == 0
    assert "Within a budget of 60 s" in capsys.readouterr().out
