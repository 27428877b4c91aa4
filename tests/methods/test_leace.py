"""LEACE: the cross-covariance vanishes, no linear probe beats chance, the formula, and nothing moves less."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.linalg
import torch
from sklearn.linear_model import LogisticRegression

import pellucid
from pellucid.core.errors import InputError
from pellucid.engine.directions import activations
from pellucid.engine.erasure import least_squares_eraser
from pellucid.engine.steering import Steering
from pellucid.methods.steering.leace import leace
from pellucid.models.batch import Row
from pellucid.models.forward import forward
from tests import plain


def made(classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Return correlated rows whose means differ between classes."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, classes, 200)
    means = rng.standard_normal((classes, 9))
    return rng.standard_normal((200, 9)) @ rng.standard_normal((9, 9)) + 2 * means[labels] + 5, labels


@pytest.mark.parametrize("classes", [2, 3])
def test_the_formula_and_no_linear_trace(classes: int) -> None:
    rows, labels = made(classes)
    eraser = least_squares_eraser(rows, labels)
    after = eraser(rows)
    told = np.eye(classes)[labels]
    cross = (after - after.mean(0)).T @ (told - told.mean(0)) / len(rows)
    assert np.abs(cross).max() < 1e-6
    assert np.abs((rows - rows.mean(0)).T @ (told - told.mean(0)) / len(rows)).max() > 0.1
    assert eraser.rank == classes - 1
    root = np.real(scipy.linalg.sqrtm(np.linalg.inv(np.cov(rows.T, bias=True))))
    base = scipy.linalg.orth(root @ ((rows - rows.mean(0)).T @ (told - told.mean(0)) / len(rows)), rcond=1e-9)
    np.testing.assert_allclose(eraser.projection, np.linalg.inv(root) @ base @ base.T @ root, atol=1e-8)
    majority = np.bincount(labels).max() / len(labels)
    before = LogisticRegression(C=1e3, max_iter=5000).fit(rows, labels).score(rows, labels)
    left = LogisticRegression(C=1e3, max_iter=5000).fit(after, labels).score(after, labels)
    assert before > majority + 0.1
    assert left <= majority + 1e-9


def test_moves_less_than_taking_the_mean_difference_away() -> None:
    rows, labels = made(2)
    gap = rows[labels == 1].mean(0) - rows[labels == 0].mean(0)
    gap /= np.linalg.norm(gap)
    plainly = np.outer((rows - rows.mean(0)) @ gap, gap)
    moved = rows - least_squares_eraser(rows, labels)(rows)
    assert (moved**2).sum() < (plainly**2).sum() * 1.0001
    assert np.linalg.matrix_rank(moved) == 1


def test_steering_erases_on_the_model() -> None:
    subject = pellucid.load(plain.tiny("gpt2"))
    prompts = [[i, 11 + i, 5 if i % 2 else 77] for i in range(40)]
    labels = [i % 2 for i in range(40)]
    found = leace(subject, prompts, labels)
    assert found.evidence[0].values["cross_covariance"] < 1e-6
    assert found.evidence[0].values["before"] > 0.9
    assert found.evidence[0].values["after"] <= 0.5 + 1e-9
    steered = subject.with_(*Steering(found, layers=[0]).edits(subject))
    after = activations(steered, prompts, "resid_post").values[0]
    told = np.array(labels) - 0.5
    assert np.abs((after - after.mean(0)).T @ told / 40).max() < 1e-6
    rows = activations(subject, prompts, "resid_post").values[0]
    np.testing.assert_allclose(after, least_squares_eraser(rows, np.array(labels))(rows), atol=1e-9)
    none = subject.with_(*Steering(found, 0.0, layers=[0, 1]).edits(subject))
    row = [Row(tuple(plain.IDS))]
    assert torch.equal(forward(none, row).logits, forward(subject, row).logits)


def test_labels_are_checked() -> None:
    subject = pellucid.load(plain.tiny("gpt2"))
    with pytest.raises(InputError, match="one for each"):
        leace(subject, [[1, 2], [3, 4]], [0])
    with pytest.raises(InputError, match="two or more classes"):
        leace(subject, [[1, 2], [3, 4]], [0, 0])
