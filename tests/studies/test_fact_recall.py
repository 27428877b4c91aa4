"""The study of fact recall on a model whose facts stand in one feed-forward layer and are read by one head."""

from __future__ import annotations

import numpy as np
import pytest

import pellucid
from pellucid.core.errors import InputError
from pellucid.core.results import Explanation, Scores
from pellucid.studies.fact_recall import CAPITALS, STATEMENTS, _entity, _trials, fact_recall

FACTS = (("france", "paris", "french"), ("spain", "madrid", "spanish"), ("japan", "tokyo", "japanese"))
TEMPLATES = ("the capital {entity} of", "capital {entity} the")


@pytest.fixture(scope="module", params=["fact", "gpt2-fact"])
def found(request: pytest.FixtureRequest) -> Explanation:
    return fact_recall(pellucid.load(f"zoo:truth/{request.param}"), templates=TEMPLATES, facts=FACTS, samples=2)


def grid(found: Explanation, start: str) -> Scores:
    return next(one for one in found.results if isinstance(one, Scores) and one.title.startswith(start))


@pytest.mark.slow
def test_the_fact_is_stored_in_the_planted_layer_and_read_in_the_planted_layer(found: Explanation) -> None:
    stored, read = grid(found, "Feed-forward layers: "), grid(found, "Attention layers: ")
    places = stored.labels["part"]
    entity, last = places.index("entity's last token"), places.index("last token")
    for one, best in ((stored, (0, entity)), (read, (1, last))):
        assert np.unravel_index(one.values.argmax(), one.values.shape) == best
        assert one.values[best] > 0
        others = one.values.copy()
        others[best] = 0
        assert np.abs(others).max() < one.values[best] / 3


@pytest.mark.slow
def test_with_another_entity_the_answer_moves_from_the_entity_to_the_last_token(found: Explanation) -> None:
    patched = grid(found, "Residual stream: what single clean values bring back with another entity")
    places = patched.labels["part"]
    wanted = np.zeros_like(patched.values)
    wanted[0, places.index("entity's last token")] = wanted[1, places.index("last token")] = 1
    np.testing.assert_allclose(patched.values, wanted, atol=0.01)


def test_cutting_attention_finds_the_same_layer(found: Explanation) -> None:
    cut = grid(found, "What the answer loses when")
    entity = cut.labels["part"].index("entity")
    assert cut.values[1, entity] > 0.9
    assert abs(cut.values[0, entity]) < 0.01


def test_noise_and_exchange_agree(found: Explanation) -> None:
    assert found.evidence[0].values["accuracy"] == 1
    assert found.evidence[1].ok
    assert found.evidence[2].ok


def test_pairs_exchange_the_entity_alone() -> None:
    subject = pellucid.load("zoo:tiny-lm")
    trials, known = _trials(subject, STATEMENTS, CAPITALS, 8, 0)
    capital = {row[0]: row[1] for row in CAPITALS}
    for trial, ids in zip(trials, known, strict=True):
        clean, corrupt = subject.encode(trial.clean).ids, subject.encode(trial.corrupt).ids
        start, end = _entity(subject, trial)
        assert len(clean) == len(corrupt)
        assert {i for i, (a, b) in enumerate(zip(clean, corrupt, strict=True)) if a != b} <= set(range(start, end))
        land = trial.clean[trial.places["start"] : trial.places["end"]]
        assert subject.encode(f"to {capital[land]}").ids[-1] == trial.right[0]
        assert trial.right[0] in ids
        assert trial.right != trial.wrong


def test_a_model_that_does_not_know_is_told_so() -> None:
    facts = [
        (land, capital) for (land, *_), (_, capital, *_) in zip(CAPITALS, CAPITALS[3:] + CAPITALS[:3], strict=True)
    ]
    found = fact_recall(pellucid.load("zoo:tiny-lm"), facts=facts)
    assert found.results == ()
    assert "cannot do this task" in found.notes[0]


def test_too_few_facts_are_refused() -> None:
    with pytest.raises(InputError, match=r"Only 0 of 1 facts have an answer of one token"):
        fact_recall(pellucid.load("zoo:tiny-lm"), facts=[("France", "Paris")])
