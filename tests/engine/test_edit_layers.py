"""Tracing picks the place where an answer is known to be written."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import pellucid
from pellucid.core.facts import Fact
from pellucid.engine.edit_layers import PLACES, evidence, strongest, traced_effects
from tests.editing import editable


def test_neighbouring_layers_with_most_effect() -> None:
    assert strongest(np.array([0.1, 0.5, 0.0, 0.3, 0.35, 0.1]), 1) == [1]
    assert strongest(np.array([0.1, 0.5, 0.0, 0.3, 0.35, 0.1]), 2) == [3, 4]
    assert strongest(np.array([0.1, 0.2]), 3) == [0, 1]


@pytest.mark.parametrize(("token", "layer"), [("last", 0), ("last", 1), ("last", 2), ("subject", 0)])
def test_the_planted_place_is_found(token: str, layer: int) -> None:
    """One layer's output at one token is made to hold, unless noise disturbs it, what decides the answer."""
    subject = editable("llama", torch.float32)
    fact = Fact("The {} is in", "cat", "Rome")
    tokens = subject.encode(fact.text)
    last = len(tokens) - 1
    subject_end = max(i for i, (a, _) in enumerate(tokens.offsets or ()) if a < fact.span[1])
    at = last if token == "last" else subject_end
    loud = subject.with_(pellucid.Edit(f"blocks.{layer}.mlp.out", "scale", 40.0, {"position": at}))
    found = traced_effects(loud, [fact])
    assert found.shape == (2, 3)
    row = found[PLACES.index("last" if token == "last" else "subject")]
    assert int(row.argmax()) == layer
    account = evidence(found, "last" if token == "last" else "subject", [layer])
    assert f"layers {layer} and the" in account.summary
    assert len(account.values) == 6
