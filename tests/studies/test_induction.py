"""The study of induction: the planted heads by name, its pairs, and models that cannot."""

from __future__ import annotations

import numpy as np
import pytest

import pellucid
from pellucid.core.errors import CapabilityError, InputError
from pellucid.core.results import Explanation, Graph, Table
from pellucid.studies.induction import _trials, induction
from pellucid.zoo import truth


@pytest.fixture(scope="module", params=["induction", "gpt2-induction"])
def planted(request: pytest.FixtureRequest) -> tuple[str, Explanation]:
    name: str = request.param
    return name, induction(pellucid.load(f"zoo:truth/{name}"), pairs=3)


def table_of(found: Explanation) -> Table:
    return next(one for one in found.results if isinstance(one, Table))


@pytest.mark.slow
def test_the_planted_heads_are_named_and_no_others(planted: tuple[str, Explanation]) -> None:
    name, found = planted
    heads = [(layer, head, one.role) for layer, block in enumerate(truth.program(name).blocks)
             for head, one in enumerate(block.heads) if one.role]  # fmt: skip
    assert {row[0] for row in table_of(found).rows} == {f"{layer}.{head}" for layer, head, _ in heads}
    roles = {row[0]: (row[1], row[2]) for row in table_of(found).rows}
    for layer, head, role in heads:
        wanted = ("induction", "logits") if role == "induction" else ("before them", "keys")
        assert roles[f"{layer}.{head}"] == wanted


def test_two_methods_agree_and_random_heads_matter_less(planted: tuple[str, Explanation]) -> None:
    _, found = planted
    assert len(found.evidence) == 4
    assert all(evidence.ok for evidence in found.evidence)
    assert found.evidence[-1].values["without"] == pytest.approx(0, abs=1e-3)
    assert found.evidence[-1].values["random_lowest"] == pytest.approx(10, abs=1e-2)


def test_the_circuit_is_drawn_as_it_is(planted: tuple[str, Explanation]) -> None:
    graph = next(one for one in planted[1].results if isinstance(one, Graph))
    edges = {
        (graph.nodes[a]["label"], graph.nodes[b]["label"]) for a, b in zip(graph.sources, graph.targets, strict=True)
    }
    assert edges == {("head 0.0", "head 1.1"), ("head 1.1", "answer")}
    np.testing.assert_allclose(graph.weights, 10, atol=1e-2)


def test_trials_differ_at_the_first_occurrence_alone() -> None:
    subject = pellucid.load("zoo:truth/induction")
    trials, sequences, mixed = _trials(subject, 6, 12, 0)
    for trial, sequence, other in zip(trials, sequences, mixed, strict=True):
        clean, corrupt = list(trial.clean), list(trial.corrupt)
        place = clean.index(clean[-1])
        assert [i for i, (a, b) in enumerate(zip(clean, corrupt, strict=True)) if a != b] == [place]
        assert trial.right == (clean[place + 1],)
        assert corrupt.count(clean[-1]) == 1
        assert trial.wrong[0] in clean and trial.wrong[0] not in (*trial.right, clean[-1])  # noqa: PT018
        assert len(sequence) == len(other) <= subject.max_length
        assert len(set(other)) == len(other)


def test_a_model_that_cannot_is_told_so_without_a_picture() -> None:
    found = induction(pellucid.load("zoo:truth/fact"), pairs=8)
    assert found.results == ()
    assert len(found.notes) == 1
    assert "cannot do this task" in found.notes[0]
    assert found.evidence[0].ok is False


def test_an_encoder_is_refused() -> None:
    with pytest.raises(CapabilityError, match=r"causal language model.*load a decoder"):
        induction(pellucid.load("zoo:tiny-classifier"))


def test_a_vocabulary_too_small_is_refused() -> None:
    with pytest.raises(InputError, match=r"has 3 ordinary tokens and takes 7 at a time; use a larger model"):
        induction(pellucid.load("zoo:truth/majority"))
