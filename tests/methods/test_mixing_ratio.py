"""The mixing ratio against the two vectors written out, and its two ends."""

from __future__ import annotations

import numpy as np
import pytest

import pellucid
from pellucid.methods.vectors.mixing_ratio import mixing_ratio
from tests import plain
from tests.engine.test_transformed import NAMES, plain_blocks


@pytest.mark.parametrize("name", NAMES)
def test_equals_the_ratio_written_out(name: str) -> None:
    found = mixing_ratio(pellucid.load(plain.tiny(name)), plain.IDS, target=1)
    for layer, block in enumerate(plain_blocks(name)):
        vectors = block.vectors.sum(0)
        for i in range(6):
            context = sum(vectors[i, j] for j in range(6) if j != i)
            own = vectors[i, i] + block.before[i]
            if block.norm is not None:
                context, own = (block.norm(v.expand(6, 1, -1))[i, 0] for v in (context, own))
            expected = float(context.norm() / (context.norm() + own.norm()))
            assert found.values[layer, i] == pytest.approx(expected, abs=1e-6)


def test_is_nothing_where_a_token_sees_itself_alone() -> None:
    found = mixing_ratio(pellucid.load(plain.tiny("gpt2")), plain.IDS, target=1)
    np.testing.assert_allclose(found.values[:, 0], 0, atol=1e-12)
    assert np.all((found.values[:, 1:] > 0) & (found.values[:, 1:] < 1))
