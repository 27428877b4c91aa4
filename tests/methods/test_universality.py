"""Universality: a model whose neurons were shuffled has every twin, and correlations equal NumPy's."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

import pellucid
from pellucid.core.errors import InputError
from pellucid.engine.capture import capture
from pellucid.methods.reading.universality import universality
from tests import plain

PROMPTS = [[11, 42, 7, 23, 64, 5, 9, 30], [8, 3, 12, 42, 11, 60, 61, 2], [1, 33, 17, 29, 50, 41]]


def test_shuffled_neurons_are_found_again() -> None:
    model = plain.tiny("gpt2")
    other = copy.deepcopy(model)
    generator = torch.Generator().manual_seed(0)
    orders = [torch.randperm(block.mlp.c_fc.weight.shape[1], generator=generator) for block in other.transformer.h]
    with torch.no_grad():
        for block, order in zip(other.transformer.h, orders, strict=True):
            block.mlp.c_fc.weight.copy_(block.mlp.c_fc.weight[:, order])
            block.mlp.c_fc.bias.copy_(block.mlp.c_fc.bias[order])
            block.mlp.c_proj.weight.copy_(block.mlp.c_proj.weight[order])
    found = universality([pellucid.load(model), pellucid.load(other)], PROMPTS, threshold=0.05)
    np.testing.assert_allclose(found.values, 1, atol=1e-9)
    places = [(layer, int((order == i).nonzero())) for layer, order in enumerate(orders) for i in range(len(order))]
    assert list(found.words or ()) == [f"{layer}.{i}" for layer, i in places]
    check = found.evidence[0].values
    assert check["null"] < 0.95
    assert check["universal"] > 0.5


@pytest.mark.parametrize("part", ["neurons", "heads"])
def test_correlations_by_hand(part: str) -> None:
    one, two = pellucid.load(plain.tiny("gpt2")), pellucid.load(plain.tiny("llama"))
    found = universality([one, two], PROMPTS, part=part)
    site = "mlp.post" if part == "neurons" else "attn.pattern"

    def series(subject: pellucid.Subject) -> np.ndarray:
        """Return the values of every part, layer by layer, on all prompts: [parts, values]."""
        rows = []
        for layer in range(subject.layers):
            values = [capture(subject, ids, [f"blocks.{layer}.{site}"])[f"blocks.{layer}.{site}"] for ids in PROMPTS]
            if part == "heads":
                values = [v[:, torch.ones(v.shape[1:]).tril().bool()].T for v in values]
            rows.append(torch.cat(values).numpy().T)
        return np.concatenate(rows)

    mine, theirs = series(one), series(two)
    width, other = len(mine) // one.layers, len(theirs) // two.layers
    row = [np.corrcoef(mine[width + 2], values)[0, 1] for values in theirs]
    layer, i = divmod(int(np.argmax(row)), other)
    best = (max(row), f"{layer}.{i}")
    assert found.values[1, 2] == pytest.approx(best[0], abs=1e-6)
    assert (found.words or ())[found.values.shape[1] + 2] == best[1]


def test_what_cannot_be_compared_is_refused() -> None:
    subject = pellucid.load(plain.tiny("gpt2"))
    with pytest.raises(InputError, match="got 1"):
        universality([subject], PROMPTS)
    with pytest.raises(InputError, match="no prompts"):
        universality([subject, subject], [])
