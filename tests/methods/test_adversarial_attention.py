"""Adversarial attention: the constraint on the native output, a head whose weights cannot matter, and grid search."""

import math
from typing import Any

import numpy as np
import pytest
import torch

import pellucid
from pellucid import Edit, Target
from pellucid.core.errors import TargetError
from pellucid.engine.attention_rows import attention_rows
from pellucid.engine.capture import capture
from pellucid.engine.output_distance import jensen_shannon
from pellucid.engine.question import ask
from pellucid.methods.attention.adversarial_attention import adversarial_attention
from tests import plain


def under(model: Any, subject: pellucid.Subject, ids: list[int], row: torch.Tensor) -> torch.Tensor:
    """Return the native output of a GPT-2 when the last position of its last layer attends as `row` says."""
    sites = ["blocks.1.attn.pattern", "blocks.1.attn.v"]
    pattern, value = (capture(subject, ids, sites)[site].clone() for site in sites)
    pattern[:, -1] = row
    mixed = torch.einsum("hqk,khd->qhd", pattern, value).reshape(1, len(ids), -1)
    hook = model.transformer.h[1].attn.c_proj.register_forward_pre_hook(lambda module, args: (mixed,))
    found = plain.logits(model, ids).softmax(-1)
    hook.remove()
    return found


def test_the_weights_found_keep_the_native_output() -> None:
    model = plain.tiny()
    subject = pellucid.load(model)
    settings = {"target": plain.TARGET, "layers": [1], "allowed": 0.0005, "steps": 20}
    weights = adversarial_attention(subject, plain.IDS, view="weights", **settings)
    found = adversarial_attention(subject, plain.IDS, **settings)
    row = torch.from_numpy(weights.values[0])
    np.testing.assert_allclose(row.sum(-1), 1, atol=1e-9)
    moved = 0.5 * (under(model, subject, plain.IDS, row) - plain.logits(model, plain.IDS).softmax(-1)).abs().sum()
    assert float(moved) <= 0.0005 + 1e-9
    [check] = found.evidence
    assert check.ok
    assert check.values["moved"] == pytest.approx(float(moved), abs=1e-9)
    own = attention_rows(ask(subject, plain.IDS, target=1), [1]).rows[0]
    np.testing.assert_allclose(found.values[0], jensen_shannon(own, row).numpy(), atol=1e-9)
    even = under(model, subject, plain.IDS, torch.full((4, 6), 1 / 6, dtype=torch.float64))
    flat = 0.5 * (even - plain.logits(model, plain.IDS).softmax(-1)).abs().sum()
    assert check.values["uniform_moved"] == pytest.approx(float(flat), abs=1e-9)
    assert check.values["uniform_moved"] > 0.0005  # so that the constraint binds


@pytest.mark.slow
def test_comes_near_the_best_of_a_grid() -> None:
    """Two keys and one head that matters: the other heads' values are switched off, so that a grid is the truth."""
    model = plain.tiny()
    with torch.no_grad():
        for layer in model.transformer.h:
            layer.attn.c_attn.weight[:, 64 + 8 :] = 0  # values of all heads but the first
            layer.attn.c_attn.bias[64 + 8 :] = 0
    ids = [11, 42]
    subject = pellucid.load(model)
    found = adversarial_attention(subject, ids, target=1, layers=[1], allowed=0.001, steps=80)
    own = attention_rows(ask(subject, ids, target=1), [1]).rows[0]
    base, best = plain.logits(model, ids).softmax(-1), 0.0
    for share in torch.linspace(0, 1, 41, dtype=torch.float64):
        row = own.clone()
        row[0] = torch.stack([share, 1 - share])
        if float(0.5 * (under(model, subject, ids, row) - base).abs().sum()) <= 0.001:
            best = max(best, float(jensen_shannon(own[0], row[0])))
    assert 1e-3 < best < 0.5
    assert found.values[0, 0] == pytest.approx(best, rel=0.15)
    assert found.values[0, 1:].min() > found.values[0, 0]  # nothing holds the others


def test_where_values_are_zero_any_weights_do() -> None:
    subject = pellucid.load(plain.tiny()).with_(Edit("blocks.0.attn.v", "zero"))
    found = adversarial_attention(subject, plain.IDS, target=plain.TARGET, layers=[0], steps=20)
    assert found.evidence[0].values["moved"] < 1e-9
    assert (found.values > 0.3).all()
    assert (found.values <= math.log(2)).all()


def test_refuses_a_target_of_several_tokens() -> None:
    with pytest.raises(TargetError, match="2 tokens"):
        adversarial_attention(pellucid.load(plain.tiny()), plain.IDS, target=Target.continuation([17, 33]))
