"""INLP: an orthogonal projection that ends when classifiers do no better than the largest class."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

import pellucid
from pellucid.engine.directions import activations
from pellucid.engine.erasure import null_space_eraser
from pellucid.engine.steering import Steering
from pellucid.methods.steering.inlp import inlp
from tests import plain


def test_ends_at_the_majority_and_takes_the_classifiers_directions() -> None:
    rng = np.random.default_rng(0)
    labels = (rng.random(120) < 0.4).astype(int)
    rows = rng.standard_normal((120, 6))
    rows[:, 2] += 4 * labels
    eraser, accuracies = null_space_eraser(rows, labels, rounds=20)
    majority = 1 - labels.mean() if labels.mean() < 0.5 else labels.mean()
    assert accuracies[0] > 0.9
    assert accuracies[-1] <= majority
    assert all(accuracy > majority for accuracy in accuracies[:-1])
    np.testing.assert_allclose(eraser.projection @ eraser.projection, eraser.projection, atol=1e-10)
    np.testing.assert_allclose(eraser.projection, eraser.projection.T, atol=1e-12)
    assert eraser.rank == len(accuracies) - 1
    first = LogisticRegression(max_iter=2000).fit(rows - rows.mean(0), labels).coef_[0]
    np.testing.assert_allclose(first @ eraser.projection, first, atol=1e-6)
    left = LogisticRegression(max_iter=2000).fit(eraser(rows), labels).score(eraser(rows), labels)
    assert left <= majority


def test_rounds_are_limited_and_steering_projects_on_the_model() -> None:
    subject = pellucid.load(plain.tiny("gpt2"))
    prompts = [[i, 11 + i, 5 if i % 2 else 77] for i in range(40)]
    found = inlp(subject, prompts, [i % 2 for i in range(40)], layers=[0], rounds=3)
    assert found.evidence[1].values["rounds"] <= 3
    assert found.tensors["projections"].shape == (1, 32, 32)
    steered = subject.with_(*Steering(found).edits(subject))
    after = activations(steered, prompts, "resid_post", layers=[0]).values[0]
    assert np.abs(after @ found.tensors["projections"][0]).max() < 1e-9
    with pytest.raises(Exception, match="was learned for"):
        Steering(found, layers=[1]).edits(subject)
