"""Norm-based attention against lengths of vectors written out from the weights."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import pellucid
from pellucid.methods.vectors.norm_based_attention import norm_based_attention
from tests import plain
from tests.engine.test_transformed import NAMES, PlainBlock, plain_blocks


def lengths(block: PlainBlock, include: str) -> torch.Tensor:
    vectors = block.vectors.sum(0)
    if include != "attention":
        for i in range(6):
            vectors[i, i] += block.before[i]
    if include == "norm" and block.norm is not None:
        vectors = block.norm(vectors)
    return vectors.norm(dim=-1)


@pytest.mark.parametrize("name", NAMES)
def test_equals_the_lengths_written_out(name: str) -> None:
    subject = pellucid.load(plain.tiny(name))
    for include in ("attention", "residual", "norm"):
        expected = torch.stack([lengths(block, include) for block in plain_blocks(name)])
        found = norm_based_attention(subject, plain.IDS, target=1, include=include)
        np.testing.assert_allclose(found.values, expected.numpy(), atol=1e-6)
    each = norm_based_attention(subject, plain.IDS, target=1, heads="each")
    expected = torch.stack([block.vectors.norm(dim=-1) for block in plain_blocks(name)])
    assert each.axes == ("layer", "head", "query", "key")
    np.testing.assert_allclose(each.values, expected.numpy(), atol=1e-6)


def test_a_token_without_value_counts_nothing_whatever_its_weight() -> None:
    """What tells this from plain attention weights."""
    subject = pellucid.load(plain.tiny("llama"))
    silent = subject.with_(pellucid.Edit("blocks.1.attn.v", "zero", where={"position": 2}))
    found = norm_based_attention(silent, plain.IDS, target=1)
    assert np.all(found.values[1, :, 2] == 0)
    assert np.all(found.values[0, 2:, 2] > 0)
