"""Metrics over data sets, axioms and intervals: by hand on small inputs, and at chance where nothing is known."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

import pellucid
from pellucid.core.errors import CapabilityError, InputError
from pellucid.core.results import Evidence, Scores
from pellucid.evaluate.explanation_consistency import explanation_consistency
from pellucid.evaluate.explanation_sufficiency import explanation_sufficiency
from pellucid.evaluate.intervals import over_examples
from pellucid.evaluate.roar import roar
from tests import plain
from tests.evaluate.additive import PROMPT, SUBJECT, TRUE, additive, scored, value, values


def test_f_fidelity() -> None:
    """One unit goes at a time: the top one against the mean of the rest, then the mean of two against two."""
    found = values("f_fidelity", TRUE)
    plus, minus = (2 * 4 + 3 * 3) / 5, (2 * (2 + 1 - 1) / 3 + 3 * 0) / 5
    assert found["plus"] == pytest.approx(plus)
    assert found["minus"] == pytest.approx(minus)
    assert found["value"] == pytest.approx(plus - minus)
    pairs = values("f_fidelity", TRUE, share=0.5)
    assert pairs["plus"] == pytest.approx((2 * 4 + 3 * 6) / 5), "two at once, where the explanation has two"
    assert abs(found["random_mean"]) < found["value"]


def test_f_fidelity_of_random_scores_is_at_chance() -> None:
    rng, gaps = np.random.default_rng(0), []
    for seed in range(40):
        found = values("f_fidelity", scored(*rng.normal(size=4)), orders=3, seed=seed)
        gaps.append(found["value"] - found["random_mean"])
    assert abs(np.mean(gaps)) < 3.5 * np.std(gaps, ddof=1) / 40**0.5


def test_completeness_gap() -> None:
    assert value("completeness_gap", TRUE) == pytest.approx(0)
    assert value("completeness_gap", scored(4, 2, 1, 2)) == pytest.approx(3 / 6)
    assert value("completeness_gap", scored(0, 0, 0, 0)) == 1


def test_input_sensitivity() -> None:
    """The word e weighs nothing: a score for it is invented, and none for a is missed."""
    prompt = "a b c e"
    true = pellucid.run("occlusion", SUBJECT, prompt, unit="word")

    def found(*numbers: float) -> dict[str, float]:
        scores = Scores(values=np.array(numbers), tokens=true.tokens, units=true.units)
        return dict(pellucid.run("input_sensitivity", SUBJECT, prompt, scores=scores).values)

    assert found(4, 2, 1, 0) == {"value": 0, "missed": 0, "invented": 0, "chance": 0.25}
    assert found(0, 2, 1, 3) == {"value": 0.5, "missed": 0.25, "invented": 0.25, "chance": 0.25}
    assert found(0.3, 0.2, 0.1, 0.7)["value"] == 0.25, "random numbers are never 0"


def test_a_unit_that_matters_in_some_context_is_no_dummy() -> None:
    """Either of a and b suffices, so removing one alone changes nothing, yet neither is without effect."""
    either = pellucid.load(lambda texts: [float("a" in t or "b" in t) for t in texts])
    shown = pellucid.run("occlusion", either, "a b c", unit="word")
    scores = Scores(values=np.array([1.0, 1.0, 0.0]), tokens=shown.tokens, units=shown.units)
    found = pellucid.run("input_sensitivity", either, "a b c", scores=scores, samples=16).values
    assert found == {"value": 0, "missed": 0, "invented": 0, "chance": pytest.approx(1 / 3)}


def shown(words: str, *numbers: float) -> Scores:
    return Scores(values=np.array(numbers), labels={"unit": tuple(words.split())})


EXPLAINED = [shown("good film", 2, 1), shown("Good fun", 2, 1), shown("good day", 1, 2), shown("bad film", 3, 1)]


def test_consistency_and_sufficiency() -> None:
    """Two show "good", both are predicted 1; a third holds it and is predicted 0."""
    found = explanation_consistency(EXPLAINED, [1, 1, 0, 0]).values
    assert (found["value"], found["paired"], found["chance"]) == pytest.approx((1, 1 / 2, 1 / 3))
    found = explanation_sufficiency(EXPLAINED, [1, 1, 0, 0]).values
    assert (found["value"], found["paired"]) == pytest.approx((1 / 2, 1 / 2))
    assert explanation_consistency(EXPLAINED, [1, 0, 0, 0]).values["value"] == 0
    assert np.isnan(explanation_consistency(EXPLAINED[2:], [1, 0]).values["value"])
    with pytest.raises(InputError, match="predictions"):
        explanation_consistency(EXPLAINED, [1])
    with pytest.raises(InputError, match="one text per unit"):
        explanation_sufficiency([Scores(values=np.ones(2))] * 2, [1, 0])


@pytest.mark.parametrize("metric", [explanation_consistency, explanation_sufficiency])
def test_random_explanations_are_at_chance(metric: Any) -> None:
    rng = np.random.default_rng(0)
    inputs = [shown("a b c d", *rng.normal(size=4)) for _ in range(400)]
    found = metric(inputs, rng.integers(3, size=400).tolist()).values
    assert abs(found["value"] - found["chance"]) < 0.03
    assert found["low"] <= found["value"] <= found["high"]


def test_diagnosticity() -> None:
    """Exact scores beat every shuffle that changes the order; a metric of the sum alone cannot tell."""
    prompts = ["a b c d", "d a b", "c a d b"]
    true = pellucid.run("occlusion", SUBJECT, prompts, unit="word")
    found = pellucid.run("diagnosticity", SUBJECT, prompts, true, "infidelity", shuffles=10).values
    assert found["value"] > 0.9
    assert found["low"] <= found["value"] <= found["high"]
    assert found["passes"] > 1
    assert pellucid.run("diagnosticity", SUBJECT, prompts, true, "completeness_gap").values["value"] == 0.5
    wrong = [Scores(values=-one.values, tokens=one.tokens, units=one.units) for one in true]
    assert pellucid.run("diagnosticity", SUBJECT, prompts, wrong, "leave_one_out_correlation").values["value"] < 0.2
    with pytest.raises(InputError, match="no metric of a prompt"):
        pellucid.run("diagnosticity", SUBJECT, prompts, true, "auprc")


def test_removal_perplexity() -> None:
    model = plain.tiny()
    subject = pellucid.load(model)
    scores = pellucid.run("occlusion", subject, plain.IDS, target=plain.TARGET, replacement=3)
    found = pellucid.run("removal_perplexity", subject, plain.IDS, scores=scores, replacement=3)

    def loss(ids: list[int]) -> float:
        with plain.torch.no_grad():
            output = model(input_ids=plain.torch.tensor([ids])).logits[0, :-1].log_softmax(-1)
        return -float(output[range(len(ids) - 1), ids[1:]].mean())

    losses = []
    for count in (1, 1, 1, 2, 3):
        changed = np.array(plain.IDS)
        changed[np.argsort(-scores.values)[:count]] = 3
        losses.append(loss(changed.tolist()))
    assert found.values["value"] == pytest.approx(np.exp(np.mean(losses) - loss(plain.IDS)))
    assert found.values["prompt"] == pytest.approx(np.exp(loss(plain.IDS)))
    assert found.ok == (found.values["value"] <= 3)
    low = pellucid.run("removal_perplexity", subject, plain.IDS, scores=scores, replacement=3, bar=1e-6)
    assert low.ok is False
    assert "unlike real text" in low.summary
    with pytest.raises(CapabilityError):
        pellucid.run("removal_perplexity", pellucid.load(plain.tiny("bert")), plain.IDS, scores=scores)


def bag_of_words(prompts: list[str], labels: list[int]) -> Any:
    """Train a linear head over counts of words and return it as a black box with two classes."""
    places = {word: i for i, word in enumerate(sorted({w for text in prompts for w in text.split()}))}

    def counts(texts: list[str]) -> np.ndarray:
        found = np.zeros((len(texts), len(places)))
        for row, text in zip(found, texts, strict=True):
            for word in text.split():
                if word in places:
                    row[places[word]] += 1
        return found

    head = LogisticRegression().fit(counts(prompts), labels)
    return pellucid.load(lambda texts: np.outer(head.decision_function(counts(texts)), [-0.5, 0.5]))


def reviews(count: int) -> tuple[list[str], list[int]]:
    """Return texts of five words, of which one or two say the label and the others nothing."""
    rng = np.random.default_rng(0)
    labels, texts = rng.integers(2, size=count).tolist(), []
    for label in labels:
        words = [f"w{i}" for i in rng.integers(8, size=3)] + [("bad", "good")[label], ("dull", "fine")[label]]
        texts.append(" ".join(rng.permutation(words)))
    return texts, labels


def test_roar_finds_what_holds_the_label() -> None:
    """Each text has two words that say its label: with both gone nothing is left, and random removal leaves more."""
    texts, labels = reviews(40)
    found = roar(bag_of_words, texts, labels, "occlusion", shares=(0.2, 0.4), settings={"unit": "word"})
    assert found.values["whole"] == 1
    assert found.curves["method"][1] < 0.75 < found.curves["random"][1]
    assert found.values["value"] == pytest.approx(np.mean(np.subtract(found.curves["random"], found.curves["method"])))

    def nothing(subject: Any, prompt: str, *, target: Any = None, unit: Any = None) -> Scores:
        return Scores(values=np.random.default_rng(len(prompt)).normal(size=len(prompt.split())))

    noise = [roar(bag_of_words, texts, labels, nothing, shares=(0.4,), seed=s).values["value"] for s in range(3)]
    assert abs(np.mean(noise)) < 3.5 * np.std(noise, ddof=1) / 3**0.5 + 0.05
    with pytest.raises(InputError, match="rise"):
        roar(bag_of_words, texts, labels, "occlusion", shares=(0.4, 0.2))
    with pytest.raises(InputError, match="one label per prompt"):
        roar(bag_of_words, texts, labels[1:], "occlusion")
    with pytest.raises(InputError, match="'delete'"):
        roar(bag_of_words, texts, labels, "occlusion", replacement="delete")


def test_intervals_over_examples() -> None:
    """The mean of 0.2, 0.4, 0.9 is 0.5; each example has its own chance level."""
    found = [Evidence("m", "", {"value": v, "random_mean": c}) for v, c in ((0.2, 0.1), (0.4, 0.2), (0.9, 0.3))]
    summary = over_examples("aopc", found)
    assert summary.values["value"] == pytest.approx(0.5)
    assert summary.values["chance"] == pytest.approx(0.2)
    assert summary.values["gap"] == pytest.approx((0.1 + 0.2 + 0.6) / 3)
    assert 0.2 <= summary.values["low"] < 0.5 < summary.values["high"] <= 0.9
    assert summary.ok is True
    lower = over_examples("infidelity", found)
    assert lower.values["gap"] == pytest.approx(-0.3)
    assert lower.ok is False
    stated = over_examples("order_violation", [Evidence("m", "", {"value": v}) for v in (0.1, float("nan"), 0.3)])
    assert (stated.values["gap"], stated.values["left_out"]) == (pytest.approx(0.3), 1)
    assert "gap" not in over_examples("max_sensitivity", found[:1] and [Evidence("m", "", {"value": 1.0})]).values
    with pytest.raises(InputError, match="No example"):
        over_examples("aopc", [])


def test_the_interval_holds_the_truth_as_often_as_it_says() -> None:
    rng, held = np.random.default_rng(0), []
    for seed in range(200):
        found = [Evidence("m", "", {"value": float(v)}) for v in rng.normal(size=30)]
        values = over_examples("order_violation", found, seed=seed, draws=400).values
        held.append(values["low"] <= 0 <= values["high"])
    assert 0.88 < np.mean(held) <= 0.99


def test_scores_of_one_prompt_are_judged_in_a_row() -> None:
    prompts = ["a b", "c d", PROMPT]
    scores = pellucid.run("occlusion", SUBJECT, prompts, unit="word")
    found = pellucid.run("order_violation", SUBJECT, prompts, scores=scores)
    assert over_examples("order_violation", found).values["value"] == 0
    assert additive([PROMPT]) == [6]
