"""GlobEnc against its formula on vectors written out from the weights."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import pellucid
from pellucid.methods.vectors.globenc import globenc
from tests import plain
from tests.engine.test_transformed import NAMES, plain_blocks


@pytest.mark.parametrize("name", NAMES)
def test_equals_the_formula_written_out(name: str) -> None:
    total = torch.eye(6, dtype=torch.float64)
    for block in plain_blocks(name):
        vectors = block.vectors.sum(0)
        for i in range(6):
            vectors[i, i] += block.before[i]
        for norm in (block.norm, block.last):
            vectors = vectors if norm is None else norm(vectors)
        lengths = vectors.norm(dim=-1)
        total = lengths / lengths.sum(-1, keepdim=True) @ total
    found = globenc(pellucid.load(plain.tiny(name)), plain.IDS, target=1)
    np.testing.assert_allclose(found.scores, total[0 if "bert" in name else -1].numpy(), atol=1e-6)
    assert found.scores.sum() == pytest.approx(1)
