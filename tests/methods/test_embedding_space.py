"""Weights as token pairs: planted heads and neurons say what they do."""

from __future__ import annotations

import pytest

import pellucid
from pellucid.core.errors import InputError
from pellucid.engine.head_weights import embedding, head_weights
from pellucid.methods.reading.embedding_space import embedding_space
from tests import plain


def test_the_planted_head_moves_every_word_to_itself() -> None:
    rows = embedding_space(pellucid.load("zoo:truth/induction"), layer=1, head=1, count=9).rows
    assert len({source for source, _, _ in rows}) == 9
    assert all(source == to for source, to, _ in rows)


def test_pairs_are_the_largest_entries_of_the_whole_matrix() -> None:
    subject = pellucid.load(plain.tiny("llama"))
    found = embedding_space(subject, layer=0, part="qk", head=3, count=5)
    weights, tokens = head_weights(subject, 0), embedding(subject)
    whole = tokens @ weights.query[3] @ weights.key[3].T @ tokens.T
    assert [value for _, _, value in found.rows] == pytest.approx(whole.flatten().topk(5).values.tolist())


def test_neurons_of_a_fact_say_its_answer() -> None:
    subject = pellucid.load("zoo:truth/two-step")
    rows = embedding_space(subject, layer=1, part="neurons", neuron=1, count=1).rows
    assert rows[0][:2] == ("neuron 1", "italy")


def test_bad_input_is_refused() -> None:
    with pytest.raises(InputError, match="no head 4"):
        embedding_space(pellucid.load(plain.tiny()), head=4)
