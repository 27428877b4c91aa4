"""Truth Forest: the first probe is scikit-learn's, the others are orthogonal and fitted to what is left."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

import pellucid
from pellucid.engine.directions import activations
from pellucid.engine.steering import Steering
from pellucid.methods.steering.truth_forest import truth_forest
from pellucid.models.batch import Row
from pellucid.models.forward import forward
from tests import plain

POSITIVE, NEGATIVE = [[i, 11 + i, 5] for i in range(12)], [[i + 40, 11 + i, 7] for i in range(12)]


def test_probes_one_after_the_other() -> None:
    subject = pellucid.load(plain.tiny("gpt2"))
    found = truth_forest(subject, POSITIVE, NEGATIVE, heads=2, probes=3, peek=1, test_share=0.0)
    values = activations(subject, [*POSITIVE, *NEGATIVE], "attn.z").values
    labels = np.repeat([1, 0], 12)
    theta = found.tensors["directions"]
    assert theta.shape[2] == 3
    for layer, head in [(0, 0), (1, 2)]:
        own = theta[layer, head]
        np.testing.assert_allclose(own @ own.T, np.eye(3), atol=1e-9)
        x = values[layer, :, head]
        for k in range(2):
            left = x - x @ own[:k].T @ own[:k]
            peer = LogisticRegression(tol=1e-10, max_iter=10_000).fit(left, labels).coef_[0]
            assert own[k] @ peer / np.linalg.norm(peer) == pytest.approx(1.0, abs=1e-4)
        np.testing.assert_allclose(found.tensors["scales"][layer, head], (x @ own.T).std(0), rtol=1e-6)


def test_steering_adds_all_directions_of_the_chosen_heads() -> None:
    subject = pellucid.load(plain.tiny("gpt2"))
    found = truth_forest(subject, POSITIVE, NEGATIVE, heads=1, probes=2, peek=3)
    [[layer, head]] = found.settings["heads"]
    site = f"blocks.{layer}.attn.z"
    rows = [Row(tuple(plain.IDS))]
    before = forward(subject, rows, capture=[site]).row(site, 0)
    steered = subject.with_(*Steering(found, 2.0).edits(subject))
    moved = forward(steered, rows, capture=[site]).row(site, 0) - before
    wanted = 2.0 * found.tensors["scales"][layer, head] @ found.tensors["directions"][layer, head]
    np.testing.assert_allclose(moved[:, head], np.tile(wanted, (len(plain.IDS), 1)), atol=1e-9)
    others = [h for h in range(moved.shape[1]) if h != head]
    assert moved[:, others].abs().max() == 0
    again = truth_forest(subject, POSITIVE, NEGATIVE, heads=1, probes=2, peek=3)
    np.testing.assert_array_equal(again.tensors["directions"], found.tensors["directions"])
