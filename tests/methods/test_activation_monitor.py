"""Monitors: probes as scikit-learn's on standardised rows, recall at a rate of false alarms, scores of tokens."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score, roc_curve
from sklearn.preprocessing import StandardScaler

import pellucid
from pellucid.engine.directions import activations, held_out
from pellucid.methods.steering.activation_monitor import activation_monitor
from tests import plain

POSITIVE, NEGATIVE = [[i, 11 + i, 5] for i in range(20)], [[i + 40, 11 + i, 7] for i in range(20)]


@pytest.fixture(scope="module")
def subject() -> pellucid.Subject:
    """Load a tiny random decoder once."""
    return pellucid.load(plain.tiny("gpt2"))


def test_against_scikit_learn(subject: pellucid.Subject) -> None:
    found = activation_monitor(subject, POSITIVE, NEGATIVE, false_alarms=0.2)
    values = activations(subject, [*POSITIVE, *NEGATIVE], "resid_post", position="mean").values
    labels = np.repeat([1, 0], 20)
    held = held_out(labels, 0.25, 0)
    at = found.settings["layers"].index(found.settings["layer"])
    scaler = StandardScaler().fit(values[at][~held])
    peer = LogisticRegression(C=0.1, tol=1e-10, max_iter=10_000).fit(scaler.transform(values[at][~held]), labels[~held])
    wanted = peer.decision_function(scaler.transform(values[at]))
    mine = values[at] @ found.tensors["probes"][at] + found.tensors["biases"][at]
    np.testing.assert_allclose(mine, wanted, atol=1e-3)
    told = found.evidence[0].values
    assert told["auroc"] == pytest.approx(roc_auc_score(labels[held], wanted[held]))
    false, right, _ = roc_curve(labels[held], wanted[held], drop_intermediate=False)
    assert told["recall_at_rate"] == pytest.approx(right[false <= 0.2 + 1e-12].max())
    raised = mine[(labels == 0) & ~held] > found.tensors["alarms"][at]
    assert raised.mean() <= 0.2


def test_no_negative_may_raise_an_alarm_at_rate_zero(subject: pellucid.Subject) -> None:
    found = activation_monitor(subject, POSITIVE, NEGATIVE, false_alarms=0.0, test_share=0.0)
    assert found.evidence[0].values["false_alarms"] == 0.0
