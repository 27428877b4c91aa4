"""Activation capping: thresholds are quantiles, and the cap lifts what lies below and leaves the rest."""

from __future__ import annotations

import numpy as np
import torch

import pellucid
from pellucid.engine.directions import activations
from pellucid.engine.steering import Steering
from pellucid.methods.steering.activation_capping import activation_capping
from pellucid.models.batch import Row
from pellucid.models.forward import forward
from tests import plain

USUAL, UNUSUAL = [[i, 11 + i, 5] for i in range(8)], [[i + 40, 11 + i, 7] for i in range(8)]


def test_lifts_to_the_quantile_and_no_further() -> None:
    subject = pellucid.load(plain.tiny("gpt2"))
    found = activation_capping(subject, USUAL, UNUSUAL, quantile=0.5, test_share=0.0, layers=[0])
    values = activations(subject, USUAL, "resid_post", layers=[0], position="mean").values[0]
    axis = found.tensors["directions"][0]
    assert np.isclose(found.tensors["thresholds"][0], np.median(values @ axis))
    steered = subject.with_(*Steering(found, operation="cap").edits(subject))
    site, row = "blocks.0.resid_post", [Row(tuple(UNUSUAL[0]))]
    before = forward(subject, row, capture=[site]).row(site, 0)
    after = forward(steered, row, capture=[site]).row(site, 0)
    v, t = torch.as_tensor(axis), float(found.tensors["thresholds"][0])
    shadow = before @ v
    wanted = before - torch.minimum(shadow - t, torch.zeros(())).unsqueeze(-1) * v
    np.testing.assert_allclose(after, wanted, atol=1e-10)
    np.testing.assert_allclose(after @ v, shadow.clamp(min=t), atol=1e-10)
    low = subject.with_(*Steering(found, operation="cap", threshold=-1e6).edits(subject))
    assert torch.equal(forward(low, row).logits, forward(subject, row).logits)


def test_evidence_counts_both_sets() -> None:
    subject = pellucid.load(plain.tiny("gpt2"))
    values = activation_capping(subject, USUAL, UNUSUAL, quantile=0.0, test_share=0.0).evidence[1].values
    assert values["usual"] == 0.0
    assert values["unusual"] > 0.3
