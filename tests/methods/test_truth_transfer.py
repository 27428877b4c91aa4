"""Transfer between sets of statements against probes learned and tested one by one."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

import pellucid
from pellucid.core.errors import InputError
from pellucid.engine.directions import activations
from pellucid.methods.steering.truth_transfer import truth_transfer
from tests import plain

POSITIVE, NEGATIVE = [[i, 11 + i, 5] for i in range(12)], [[i, 11 + i, 77] for i in range(12)]


@pytest.fixture(scope="module")
def subject() -> pellucid.Subject:
    """Load a tiny random decoder once."""
    return pellucid.load(plain.tiny("gpt2"))


def test_transfer_against_probes_learned_one_by_one(subject: pellucid.Subject) -> None:
    rng = np.random.default_rng(0)
    sets = {
        "a": [(ids, 1) for ids in POSITIVE] + [(ids, 0) for ids in NEGATIVE],
        "b": [([int(i) for i in rng.integers(1, 99, 3)], int(k % 2)) for k in range(10)],
    }
    found = truth_transfer(subject, sets, layer=0, probe="difference", centred=False, test_share=0.0)
    for i, one in enumerate(sets.values()):
        rows = activations(subject, [ids for ids, _ in one], "resid_post", layers=[0]).values[0]
        labels = np.array([label for _, label in one])
        theta = rows[labels == 1].mean(0) - rows[labels == 0].mean(0)
        for j, other in enumerate(sets.values()):
            tested = activations(subject, [ids for ids, _ in other], "resid_post", layers=[0]).values[0]
            wanted = roc_auc_score([label for _, label in other], tested @ theta)
            assert found.values[i, j] == pytest.approx(wanted)
    assert found.values[0, 0] == 1.0
    with pytest.raises(InputError, match="items of both"):
        truth_transfer(subject, {"a": [([1, 2], 1)]})
