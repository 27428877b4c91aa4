"""Arithmetic mediation against hooks and the paper's formula, by hand, and on planted neurons."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import pellucid
from pellucid.core.errors import InputError, TargetError
from pellucid.methods.patching.arithmetic_mediation import arithmetic_mediation
from pellucid.zoo import truth
from tests import plain

CORRUPT = [11, 42, 8, 23, 64, 5]
RESULT, OTHER = 17, 33


def test_equals_the_formula_with_hooks_by_hand() -> None:
    model = plain.tiny()
    blocks, seen = model.transformer.h, {}
    handles = [b.mlp.register_forward_hook(lambda m, a, out, i=i: seen.update({i: out})) for i, b in enumerate(blocks)]
    plain.logits(model, plain.IDS)
    for handle in handles:
        handle.remove()
    values = dict(seen)
    base = plain.logits(model, CORRUPT).softmax(-1)
    found = arithmetic_mediation(pellucid.load(model), plain.IDS, corrupt=CORRUPT, target=RESULT, contrast=OTHER)
    for layer in range(2):
        for position in (0, 2, 4, 5):

            def put(module: Any, args: Any, out: torch.Tensor, layer: int = layer, at: int = position) -> torch.Tensor:
                out = out.clone()
                out[0, at] = values[layer][0, at]
                return out

            handle = blocks[layer].mlp.register_forward_hook(put)
            patched = plain.logits(model, CORRUPT).softmax(-1)
            handle.remove()
            expected = (patched[RESULT] - base[RESULT]) / base[RESULT]
            expected = 0.5 * (expected + (base[OTHER] - patched[OTHER]) / patched[OTHER])
            assert found.values[layer, position] == pytest.approx(float(expected), abs=1e-9)
    assert np.abs(found.values[:, 2]).max() > 1e-5
    np.testing.assert_allclose(found.values[:, :2], 0, atol=1e-12)  # left of the difference nothing is carried


def test_the_planted_layer_computes_the_result_at_the_last_token() -> None:
    """In `two-step`, the second feed-forward layer makes the country at the last token."""
    pair, subject = truth.answer("two-step")["pairs"][0], pellucid.load("zoo:truth/two-step")
    found = arithmetic_mediation(subject, pair["clean"], corrupt=pair["corrupt"])
    carrying = {(layer, position) for layer, _, position, _ in pair["neurons"]}
    assert {(int(a), int(b)) for a, b in np.argwhere(found.values > 0.5)} == carrying
    assert found.evidence[0].ok
    assert found.evidence[0].values["late"] == pytest.approx(0.5, abs=0.01)  # one early place, one late, alike


def test_bad_input_is_refused() -> None:
    subject = pellucid.load(plain.tiny())
    with pytest.raises(InputError, match="line up"):
        arithmetic_mediation(subject, plain.IDS, corrupt=CORRUPT[:-1])
    with pytest.raises(TargetError, match="one token"):
        arithmetic_mediation(subject, plain.IDS, corrupt=CORRUPT, target=pellucid.Target(1))
