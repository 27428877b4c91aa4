"""ALTI against its formula on vectors written out from the weights."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import pellucid
from pellucid.methods.vectors.alti import alti
from tests import plain
from tests.engine.test_transformed import NAMES, PlainBlock, plain_blocks


def contributions(block: PlainBlock) -> torch.Tensor:
    vectors = block.vectors.sum(0)
    for i in range(6):
        vectors[i, i] += block.before[i]
    if block.norm is not None:
        vectors = block.norm(vectors)
    matrix = torch.zeros(6, 6, dtype=torch.float64)
    for i in range(6):
        whole = block.middle[i]
        for j in range(6):
            matrix[i, j] = max(0.0, float(whole.abs().sum() - (whole - vectors[i, j]).abs().sum()))
    return matrix / matrix.sum(-1, keepdim=True)


def rollout(matrices: list[torch.Tensor]) -> torch.Tensor:
    total = torch.eye(6, dtype=torch.float64)
    for matrix in matrices:
        total = matrix @ total
    return total


@pytest.mark.parametrize("name", NAMES)
def test_equals_the_formula_written_out(name: str) -> None:
    expected = rollout([contributions(block) for block in plain_blocks(name)])[0 if "bert" in name else -1]
    found = alti(pellucid.load(plain.tiny(name)), plain.IDS, target=1)
    np.testing.assert_allclose(found.scores, expected.numpy(), atol=1e-6)
    assert found.scores.sum() == pytest.approx(1)


def test_the_encoder_of_two_stacks_is_read_at_all_positions() -> None:
    found = alti(pellucid.load(plain.tiny("t5")), plain.IDS, target=1)
    assert found.scores.shape == (6,)
    assert found.scores.sum() == pytest.approx(1)
