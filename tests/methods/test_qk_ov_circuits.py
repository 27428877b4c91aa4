"""Eigenvalues of circuits against the whole vocabulary matrix, and a planted copying head."""

from __future__ import annotations

import pytest
import torch

import pellucid
from pellucid.core.errors import CapabilityError
from pellucid.engine.head_weights import embedding, head_weights, unembedding
from pellucid.methods.reading.qk_ov_circuits import qk_ov_circuits
from tests import plain


@pytest.mark.parametrize("circuit", ["ov", "qk"])
def test_eigenvalues_are_those_of_the_whole_matrix(circuit: str) -> None:
    subject = pellucid.load(plain.tiny("llama"))
    found = qk_ov_circuits(subject, circuit=circuit)
    tokens, outputs = embedding(subject), unembedding(subject)
    for layer in range(2):
        weights = head_weights(subject, layer)
        for head in range(4):
            whole = tokens @ weights.value[head] @ weights.output[head] @ outputs.T
            if circuit == "qk":
                whole = tokens @ weights.query[head] @ weights.key[head].T @ tokens.T
            values = torch.linalg.eigvals(whole)
            assert found.values[layer, head] == pytest.approx(float(values.real.sum() / values.abs().sum()), abs=1e-6)


def test_the_planted_induction_head_copies() -> None:
    found = qk_ov_circuits(pellucid.load("zoo:truth/induction"))
    assert found.values[1, 1] == pytest.approx(1, abs=1e-6)
    assert found.evidence[0].values["highest"] == pytest.approx(1, abs=1e-6)


def test_post_norm_models_are_refused() -> None:
    with pytest.raises(CapabilityError, match="pre-norm"):
        qk_ov_circuits(pellucid.load(plain.tiny("bert-classifier")))
