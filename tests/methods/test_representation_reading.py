"""Representation reading: the principal component by an SVD, clusters by hand, labels only for the sign."""

from __future__ import annotations

import numpy as np
import pytest

import pellucid
from pellucid.core.errors import InputError
from pellucid.engine.directions import activations
from pellucid.methods.steering.representation_reading import representation_reading
from tests import plain

POSITIVE = [[11, 42, 7, 5], [23, 64, 5], [3, 9], [40, 2, 5], [61, 5]]
NEGATIVE = [[8, 1, 2, 77], [50, 51, 77], [33, 77], [12, 77], [13, 9, 77]]


@pytest.fixture(scope="module")
def subject() -> pellucid.Subject:
    """Load a tiny random decoder once."""
    return pellucid.load(plain.tiny("gpt2"))


def test_pca_is_the_first_right_singular_vector_of_signed_differences(subject: pellucid.Subject) -> None:
    found = representation_reading(subject, POSITIVE, NEGATIVE, test_share=0.0, seed=3)
    values = activations(subject, [*POSITIVE, *NEGATIVE], "resid_post").values
    signs = np.random.default_rng(3).choice([-1.0, 1.0], size=5)[:, None]
    for layer in range(2):
        gaps = (values[layer, :5] - values[layer, 5:]) * signs
        axis = np.linalg.svd(gaps - gaps.mean(0))[2][0]
        mine = found.tensors["directions"][layer]
        assert abs(axis @ mine) == pytest.approx(1.0, abs=1e-9)
        assert mine @ (values[layer, :5].mean(0) - values[layer, 5:].mean(0)) > 0


def test_a_pair_alone_gives_its_difference(subject: pellucid.Subject) -> None:
    found = representation_reading(subject, POSITIVE[:1], NEGATIVE[:1])
    values = activations(subject, [POSITIVE[0], NEGATIVE[0]], "resid_post").values
    gap = values[1, 0] - values[1, 1]
    np.testing.assert_allclose(found.tensors["directions"][1], gap / np.linalg.norm(gap), atol=1e-9)


def test_two_clusters_are_the_two_last_tokens(subject: pellucid.Subject) -> None:
    """In a model without blocks' work, prompts with equal last tokens cluster; here the first block keeps that."""
    one, none = [[i, 5] for i in range(20, 26)], [[i, 77] for i in range(20, 26)]
    found = representation_reading(subject, one, none, reading="kmeans", test_share=0.0)
    values = activations(subject, [*one, *none], "resid_post").values[0]
    gap = values[:6].mean(0) - values[6:].mean(0)
    np.testing.assert_allclose(found.tensors["directions"][0], gap / np.linalg.norm(gap), atol=1e-6)
    assert found.evidence[0].values["auroc"] == 1.0


def test_unequal_sets_are_refused(subject: pellucid.Subject) -> None:
    with pytest.raises(InputError, match="one for each"):
        representation_reading(subject, POSITIVE, NEGATIVE[:3])
