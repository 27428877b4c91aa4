"""Metrics of edits: brute force with plain transformers, edits whose outcome is known, and formulas by hand."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch

import pellucid
from pellucid import Edit
from pellucid.core.errors import CapabilityError, InputError
from pellucid.core.facts import Fact
from pellucid.engine.capture import capture
from pellucid.engine.continuations import following_ids, forced, spoken, text_of
from pellucid.engine.divergence import parting
from pellucid.engine.edit_cases import EditCase, as_cases
from pellucid.evaluate._edits import ask_both, figures, harmonic, overall
from pellucid.evaluate._fluency import entropy_of, likeness
from pellucid.evaluate._moved import moved
from pellucid.evaluate.edit_data import tiny_lm_cases, tiny_lm_texts
from pellucid.evaluate.edit_efficacy import edit_efficacy
from pellucid.evaluate.edit_generality import edit_generality
from pellucid.evaluate.edit_locality import edit_locality
from pellucid.evaluate.edit_score import edit_score
from pellucid.evaluate.generation_entropy import generation_entropy
from pellucid.evaluate.prove_edit import prove_edit
from pellucid.evaluate.reference_consistency import reference_consistency
from pellucid.evaluate.ripple_effects import ripple_effects
from pellucid.evaluate.sequential_collapse import sequential_collapse
from pellucid.evaluate.side_effects import side_effects
from tests.tiny import TINY

SUBJECT = pellucid.load("zoo:tiny-lm")
FRANCE = EditCase(
    Fact("The capital of {} is", "France", "Rome", "Paris"), ("France's capital is", "In France, the capital is"),
    (("The capital of Germany is", "Berlin"), ("The capital of Japan is", "Tokyo")),
    {"logical": (("Rome is the capital of", "France"),)}, ("Rome Rome Tiber", "Rome Vatican"),
)  # fmt: skip
JAPAN = EditCase(Fact("The capital of Japan is", "Japan", "Rabat", "Tokyo"), ("Japan's capital is",),
                 (("The capital of Morocco is", "Rabat"),), {}, ("Rabat Atlas",))  # fmt: skip
CASES = [FRANCE, JAPAN]


def saying(word: str, size: float = 50.0) -> pellucid.Subject:
    """Return the subject with one word pushed up at every position of the prompt's end and of what follows."""
    token = following_ids(SUBJECT, "The capital of France is", word)[1]
    assert len(token) == 1
    push = torch.zeros(SUBJECT.vocabulary)
    push[token[0]] = size
    return SUBJECT.with_(Edit("logits", "add", push, {"position": -1}))


def plain_log_probs(prompt: str, answer: str) -> np.ndarray:
    first, following = following_ids(SUBJECT, prompt, answer)
    with torch.no_grad():
        logits = SUBJECT.model(torch.tensor([[*first, *following]])).logits[0].double().log_softmax(-1)
    return np.array([float(logits[len(first) - 1 + i, token]) for i, token in enumerate(following)])


def test_forced_answers_are_what_plain_transformers_give() -> None:
    asked = [("The capital of France is", "Paris"), ("Paris", "is the capital of France."), ("Mary", "Keller"),
             ("The capital of France is", "committee")]  # fmt: skip
    found = forced(SUBJECT, [following_ids(SUBJECT, *pair) for pair in asked])
    for pair, one in zip(asked, found, strict=True):
        np.testing.assert_allclose(one.log_probs, plain_log_probs(*pair), atol=2e-4)
    assert found[0].exact == 1
    assert len(found[3].log_probs) > 1
    assert found[3].probability == pytest.approx(np.exp(plain_log_probs(*asked[3]).mean()), rel=1e-3)


def test_free_answers_are_what_plain_transformers_generate_to_the_end() -> None:
    prompts = ["The capital of France is", "Mary and John went to the", "Paris is"]
    ids = [SUBJECT.encode(prompt).ids for prompt in prompts]
    found = spoken(SUBJECT, ids, 12)
    for own, given in zip(found, ids, strict=True):
        with torch.no_grad():
            out = SUBJECT.model.generate(
                torch.tensor([given]), attention_mask=torch.ones(1, len(given), dtype=torch.long), do_sample=False,
                max_new_tokens=12, pad_token_id=0,
            )[0, len(given):].tolist()  # fmt: skip
        ended = out[: out.index(2)] if 2 in out else out
        assert list(own) == ended
    assert text_of(SUBJECT, ids[0], found[0]) == " Paris."
    assert spoken(SUBJECT, ids, 12, top=3, seed=1) == spoken(SUBJECT, ids, 12, top=3, seed=1)
    assert spoken(SUBJECT, ids[1:2], 12, top=20, seed=1) != spoken(SUBJECT, ids[1:2], 12, top=20, seed=5)


def test_efficacy_before_and_after() -> None:
    """The push makes Rome win everywhere: both figures of France turn, and none of Japan, whose new answer is Rabat."""
    found = edit_efficacy(SUBJECT, saying("Rome"), CASES).values
    assert (found["value"], found["before"], found["change"]) == (0.5, 0, 0.5)
    assert (found["exact"], found["exact_before"]) == (0.5, 0)
    assert (found["says"], found["says_before"]) == (0.5, 0)
    paris = [float(np.exp(plain_log_probs("The capital of France is", word)[0])) for word in ("Rome", "Paris")]
    tokyo = [float(np.exp(plain_log_probs("The capital of Japan is", word)[0])) for word in ("Rabat", "Tokyo")]
    assert found["magnitude_before"] == pytest.approx((paris[0] - paris[1] + tokyo[0] - tokyo[1]) / 2, abs=1e-4)
    assert found["magnitude"] == pytest.approx((1 - 0 + 0 - 0) / 2, abs=1e-3)


def test_an_unchanged_model_shows_no_change() -> None:
    found = edit_efficacy(SUBJECT, SUBJECT, CASES)
    assert [found.values[f"{name}change"] for name in ("", "exact_", "says_", "magnitude_")] == [0, 0, 0, 0]
    assert found.ok is None or found.ok is False
    near = edit_locality(SUBJECT, SUBJECT, CASES).values
    assert (near["kl"], near["same"], near["unchanged"]) == (0, 1, 1)
    quiet = side_effects(SUBJECT, SUBJECT, tiny_lm_texts(5))
    assert (quiet.values["value"], quiet.values["perplexity_ratio"], quiet.values["same"]) == (0, 1, 1)
    assert quiet.ok is True


def test_without_a_true_answer_the_rival_is_what_the_model_said() -> None:
    fact = Fact("The capital of {} is", "France", "Rome")
    assert edit_efficacy(SUBJECT, saying("Rome"), [fact], tokens=0).values["value"] == 1
    known = Fact("The capital of {} is", "France", "Paris")
    found = edit_efficacy(SUBJECT, SUBJECT, [known], tokens=0).values
    assert np.isnan(found["value"]), "the answer is what the model said already, so there is no preference"
    assert found["exact"] == 1


def test_generality_is_a_mean_per_fact_and_locality_sees_the_push() -> None:
    one = edit_generality(SUBJECT, saying("Rome"), CASES, tokens=0).values
    assert (one["value"], one["before"]) == (0.5, 0), "1 over France's two paraphrases, 0 over Japan's one"
    near = edit_locality(SUBJECT, saying("Rome"), [FRANCE]).values
    assert (near["value"], near["before"]) == (0, 1)
    assert (near["same"], near["unchanged"]) == (0, 0)
    only = edit_locality(SUBJECT, saying("Rabat"), [JAPAN], tokens=0).values
    assert np.isnan(only["value"]), "the neighbour's true answer is the new one, so nothing is to be told apart"


def test_divergence_by_brute_force() -> None:
    texts = [SUBJECT.encode(text).ids for text in ("The capital of France is Paris.", "Mary lives")]
    other = SUBJECT.with_(Edit("blocks.2.mlp.out", "scale", 0.5))
    found = parting(SUBJECT, other, texts)
    for ids, one in zip(texts, found, strict=True):
        p, q = (capture(s, ids, ["logits"])["logits"].double().log_softmax(-1) for s in (SUBJECT, other))
        np.testing.assert_allclose(one.kl, (p.exp() * (p - q)).sum(-1).numpy(), atol=1e-4)
        losses = [-p[i, token].item() for i, token in enumerate(ids[1:])]
        np.testing.assert_allclose(one.losses[0], losses, atol=1e-3)
    np.testing.assert_allclose(parting(SUBJECT, other, texts, last=True)[0].kl, found[0].kl[-1:], atol=1e-5)
    values = side_effects(SUBJECT, other, ["The capital of France is Paris.", "Mary lives"]).values
    assert values["value"] == pytest.approx(np.concatenate([one.kl for one in found]).mean(), rel=1e-6)
    losses = np.concatenate([one.losses for one in found], axis=1)
    assert values["perplexity_before"] == pytest.approx(np.exp(losses[0].mean()), rel=1e-6)
    assert values["perplexity"] == pytest.approx(np.exp(losses[1].mean()), rel=1e-6)
    assert values["perplexity_change"] == pytest.approx(values["perplexity"] - values["perplexity_before"])


def test_the_score_is_a_harmonic_mean() -> None:
    assert harmonic(np.array([[0.5], [1.0], [0.25]]))[0] == pytest.approx(3 / (2 + 1 + 4))
    assert harmonic(np.array([[0.5], [1.0], [0.0]]))[0] == 0
    parts = [(np.zeros(4), np.array([1.0, 0, 1, 0])), (np.zeros(4), np.ones(4)), (np.ones(4), np.array([1.0, 0, 0, 0]))]
    found = overall(parts, 0).values
    assert (found["value"], found["before"]) == (pytest.approx(3 / 7), 0)
    assert found["low"] < 3 / 7 < found["high"]
    whole = edit_score(SUBJECT, saying("Rome"), [FRANCE]).values
    assert (whole["efficacy"], whole["generality"], whole["locality"], whole["value"]) == (1, 1, 0, 0)


def test_intervals_are_those_of_paired_facts() -> None:
    before, after = np.array([0.0, 1, 2, 3] * 10), np.array([1.0, 2, 3, 4] * 10)
    found = figures({"a": (before, after), "b": (after, before)}, "a", 0)
    assert (found["value"], found["before"], found["change"]) == (2.5, 1.5, 1)
    assert (found["change_low"], found["change_high"]) == (1, 1), "every fact gains exactly 1"
    assert found["low"] < 2.5 < found["high"]
    assert (found["b"], found["b_before"], found["b_change"]) == (1.5, 2.5, -1)
    assert found["cases"] == 40


def test_entropy_by_hand() -> None:
    """Bigrams ab ba ab: 2/3, 1/3; trigrams aba, bab: one bit."""
    two = -(2 / 3 * np.log2(2 / 3) + 1 / 3 * np.log2(1 / 3))
    assert entropy_of("a b A b") == pytest.approx((2 / 3 * two + 4 / 3 * 1) / 2)
    assert entropy_of("a a a a a") == 0
    assert entropy_of("") == 0


def test_entropy_of_a_model_that_repeats_itself() -> None:
    prompts = ["Mary and John went to the", "Once upon a time"]
    stuck = generation_entropy(SUBJECT, SUBJECT.with_(Edit("logits", always)), prompts, tokens=20)
    assert stuck.values["value"] == 0
    assert stuck.values["before"] > 1
    assert stuck.values["words"] == 20


def always(value: torch.Tensor, context: Any) -> torch.Tensor:
    """Say Rome whatever comes."""
    return torch.nn.functional.one_hot(torch.full(value.shape[:1], following_ids(SUBJECT, "In", "Rome")[1][0]),
                                       value.shape[-1]).to(value) * 100  # fmt: skip


def test_likeness_to_references() -> None:
    own, others = likeness(["Rome Rome", "nothing"], [["Rome Rome"], ["Rabat Atlas"]])
    np.testing.assert_allclose(own, [1, 0])
    np.testing.assert_allclose(others, [0, 0])
    same = reference_consistency(SUBJECT, SUBJECT.with_(Edit("logits", always)), CASES, tokens=5).values
    assert same["before"] < same["value"]
    assert same["change"] > 0
    assert same["value"] == pytest.approx(same["others"]), "whoever is asked about, it is Rome"


def test_what_moved_starts_at_the_layer_that_was_changed() -> None:
    edit = Edit("blocks.3.mlp.out", "scale", 0.0)
    found = moved(
        SUBJECT, SUBJECT.with_(edit), {"facts": ["The capital of France is"], "all": ["Mary lives"]}, whole="all"
    )
    assert (found.values[:3] == 0).all()
    assert (found.values[3:] > 0).all()
    first, second = (capture(s, "The capital of France is", ["blocks.4.resid_post"])["blocks.4.resid_post"][-1]
                     for s in (SUBJECT, SUBJECT.with_(edit)))  # fmt: skip
    assert found.values[4, 0] == pytest.approx(float((second - first).norm() / first.norm()), rel=1e-3)


def test_the_proof_gives_what_the_metrics_give(tmp_path: Any) -> None:
    texts, changed = tiny_lm_texts(6), saying("Rome")
    proof = prove_edit(SUBJECT, changed, CASES, neutral=texts, written_tokens=10)
    rows = {(row[0], row[1]): row[2:] for row in proof.results[0].rows}
    efficacy, near = edit_efficacy(SUBJECT, changed, CASES).values, edit_locality(SUBJECT, changed, CASES).values
    assert rows["efficacy", "new answer beats the true one"][:3] == (0.0, 0.5, 0.5)
    assert rows["efficacy", "p(new) - p(true)"][1] == pytest.approx(efficacy["magnitude"], rel=1e-2)
    assert rows["locality", "same likeliest next token"][1] == pytest.approx(near["same"], rel=1e-2)
    assert rows["score", "harmonic mean of these"][0] == 0
    kl = side_effects(SUBJECT, changed, texts).values
    assert rows["side effects", "KL per neutral token, nats"][:2] == (0, pytest.approx(kl["value"], rel=1e-2))
    assert ("logical", "what follows is the likeliest") in rows
    said = proof.results[1]
    assert said.rows[0] == ("efficacy", "The capital of France is", "Rome", "Paris.", said.rows[0][4])
    assert said.rows[0][4].startswith("Rome")
    opened = pellucid.open(proof.save(tmp_path / "proof"))
    assert opened.results[0].rows == proof.results[0].rows
    assert "What the model says" in proof.html()
    json.dumps([check.values for check in proof.evidence])


def test_the_proof_names_what_it_could_not_judge() -> None:
    plain = prove_edit(SUBJECT, SUBJECT, [FRANCE.fact], written_tokens=0, tokens=0, neutral=["Mary lives in"])
    assert [row[0] for row in plain.results[0].rows] == ["efficacy"] * 3 + ["side effects"] * 2
    assert any("paraphrases, neighbours, consequences" in note for note in plain.notes)


def test_tiny_lm_knows_the_facts_that_are_edited() -> None:
    cases = tiny_lm_cases(8, seed=3)
    asked = ask_both(SUBJECT, SUBJECT, [], 8, 0)
    assert asked.measured["prefers"][0].shape == (8,)
    found = edit_efficacy(SUBJECT, SUBJECT, cases, tokens=0).values
    assert found["value"] <= 1 / 8
    near = edit_locality(SUBJECT, SUBJECT, cases, tokens=0).values
    assert near["value"] > 0.9
    assert near["exact"] > 0.9


def test_wrong_questions_are_refused() -> None:
    with pytest.raises(InputError, match="paraphrases"):
        edit_generality(SUBJECT, SUBJECT, [FRANCE.fact])
    with pytest.raises(InputError, match="neighbours"):
        edit_locality(SUBJECT, SUBJECT, [FRANCE.fact])
    with pytest.raises(InputError, match="references"):
        reference_consistency(SUBJECT, SUBJECT, [FRANCE.fact])
    with pytest.raises(InputError, match="without an answer"):
        EditCase(Fact("The capital of {} is", "France", "Rome"), (), ("The capital of Spain is",))
    with pytest.raises(InputError, match="No fact"):
        as_cases([])
    with pytest.raises(InputError, match="No prompt"):
        generation_entropy(SUBJECT, SUBJECT, [])
    with pytest.raises(InputError, match="two tokens"):
        side_effects(SUBJECT, SUBJECT, [])
    with pytest.raises(CapabilityError, match="tokenizer"):
        edit_efficacy(pellucid.load(TINY["gpt2"]()), SUBJECT, [FRANCE])
    with pytest.raises(InputError, match="empty"):
        edit_efficacy(SUBJECT, SUBJECT, [EditCase(FRANCE.fact, (), ((" ", " "),))]) and following_ids(SUBJECT, "a", " ")


def test_ripple_effects_by_kind() -> None:
    case = EditCase(FRANCE.fact, (), (), {"logical": (("Rome is the capital of", "France"),), "aliasing": (
        ("Paris is the capital of", "France"), ("Berlin is the capital of", "France"))})  # fmt: skip
    found = ripple_effects(SUBJECT, saying("France"), [case]).values
    assert (found["logical_before"], found["aliasing_before"], found["before"]) == (0, 0.5, pytest.approx(1 / 3))
    assert (found["logical"], found["aliasing"], found["value"], found["says"]) == (1, 1, 1, 1)
    with pytest.raises(InputError, match="consequences"):
        ripple_effects(SUBJECT, SUBJECT, [FRANCE.fact])


def test_collapse_under_a_row_of_edits() -> None:
    broken = SUBJECT.with_(Edit("blocks.2.resid_post", "scale", 0.0))
    facts = [FRANCE.fact, JAPAN.fact]
    found = sequential_collapse(SUBJECT, [saying("Rome"), saying("Rabat")], facts, texts=["Mary lives in Oslo."])
    assert found.curves["facts that hold"] == (1, 0.5), "the second push replaces the first"
    assert found.curves["the last step's"] == (1, 1)
    bad = sequential_collapse(SUBJECT, [SUBJECT, broken], facts, texts=["The capital of France is Paris."])
    assert (bad.values["collapsed"], bad.ok) == (2, False)
    assert bad.values["perplexity"] > 2 * bad.values["perplexity_before"]
    with pytest.raises(InputError, match="per step"):
        sequential_collapse(SUBJECT, [], [])
