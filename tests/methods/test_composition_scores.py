"""Composition of heads against products of stream width, and planted heads."""

from __future__ import annotations

import numpy as np
import pytest

import pellucid
from pellucid.engine.head_weights import head_weights
from pellucid.methods.reading.composition_scores import composition_scores
from tests import plain


@pytest.mark.parametrize("reads", ["q", "k", "v"])
def test_composition_equals_products_of_stream_width(reads: str) -> None:
    subject = pellucid.load(plain.tiny("llama"))
    found = composition_scores(subject, reads=reads)
    one, two = head_weights(subject, 0), head_weights(subject, 1)
    for i, j in ((0, 0), (3, 1), (2, 3)):
        ov = one.value[i] @ one.output[i]
        qk = two.query[j] @ two.key[j].T
        after = {"q": qk, "k": qk.T, "v": two.value[j] @ two.output[j]}[reads]
        expected = (ov @ after).norm() / (ov.norm() * after.norm())
        assert found.values[i, 4 + j] == pytest.approx(float(expected), abs=1e-10)
    assert not found.values[4:].any()
    assert not found.values[:, :4].any()


def test_the_planted_induction_heads_compose() -> None:
    """In `induction`, head 1.1 reads with its keys what the previous-word head 0.0 writes, and no other pair does."""
    composed = composition_scores(pellucid.load("zoo:truth/induction"), reads="k")
    assert composed.values[0, 3] > 0.1
    np.testing.assert_allclose(np.delete(composed.values.ravel(), 3), 0, atol=1e-6)
