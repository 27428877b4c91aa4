"""The guard's numbers are those of a plain loop, and it warns where an edit is large."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pellucid.core.results import WeightEdit
from pellucid.engine.edit_guard import guard
from tests.editing import TEXTS, editable, matrix_of


@pytest.mark.parametrize("size", [0.01, 5.0])
def test_drift_perplexity_and_warning(size: float) -> None:
    subject = editable("llama")
    name = "model.layers.1.mlp.down_proj.weight"
    weight = matrix_of(subject, 1).weight.detach()
    generator = np.random.default_rng(0)
    delta = generator.normal(size=tuple(weight.shape))
    delta *= size * float(weight.norm()) / np.linalg.norm(delta)
    edit = WeightEdit(deltas={name: delta})
    found = guard(subject, edit, TEXTS[:3])
    view = subject.with_(edit)
    drifts, losses = [], []
    for text in TEXTS[:3]:
        ids = subject.encode(text).ids
        with torch.no_grad():
            old, new = (on.model(input_ids=torch.tensor([ids])).logits[0].log_softmax(-1) for on in (subject, view))
        drifts += [float((old[i].exp() * (old[i] - new[i])).sum()) for i in range(len(ids) - 1)]
        losses += [(float(old[i, ids[i + 1]]), float(new[i, ids[i + 1]])) for i in range(len(ids) - 1)]
    before, after = np.exp(-np.mean(losses, 0))
    assert found.values["drift (nats)"] == pytest.approx(np.mean(drifts), rel=1e-5)
    assert found.values["perplexity before"] == pytest.approx(before, rel=1e-5)
    assert found.values["perplexity after"] == pytest.approx(after, rel=1e-5)
    assert found.values[f"norm ratio of {name}"] == pytest.approx(size)
    assert found.ok == (size < 1)
    assert ("check what else" in found.summary) == (size > 1)
