"""PASTA against a run of the native model with its attention reweighed by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from transformers.models.gpt2 import modeling_gpt2

import pellucid
from pellucid.core.errors import InputError
from pellucid.engine.emphasis import emphasis
from pellucid.methods.steering.pasta import pasta
from pellucid.models.batch import Row
from pellucid.models.forward import forward
from tests import plain

PROMPTS = [plain.IDS, [3, 9, 81, 2, 40], [7, 12, 55, 60]]


def by_hand(ids: list[int], layer: int, head: int, keys: list[int], share: float) -> torch.Tensor:
    """Return GPT-2's last logits with one head's pattern reweighed row by row."""
    model = plain.tiny("gpt2")
    model.config._attn_implementation = "eager"
    plainly = modeling_gpt2.eager_attention_forward

    def attend(module: Any, query: Any, key: Any, value: Any, mask: Any, **rest: Any) -> Any:
        output, pattern = plainly(module, query, key, value, mask, **rest)
        if module is model.transformer.h[layer].attn:
            for i in range(len(ids)):
                row = pattern[0, head, i].clone()
                for j in range(len(ids)):
                    row[j] = row[j] * (1.0 if j in keys else share)
                pattern[0, head, i] = row / row.sum()
            output = (pattern @ value).transpose(1, 2).contiguous()
        return output, pattern

    modeling_gpt2.eager_attention_forward = attend
    try:
        return plain.logits(model, ids)
    finally:
        modeling_gpt2.eager_attention_forward = plainly


def test_effect_of_single_heads_by_hand() -> None:
    subject = pellucid.load(plain.tiny("gpt2"))
    found = pasta(subject, PROMPTS, [(1, 3)] * 3, [plain.TARGET] * 3, contrasts=[plain.CONTRAST] * 3, share=0.1,
                  test_share=0.0, heads=2)  # fmt: skip
    for layer, head in [(0, 0), (1, 3)]:
        moved = []
        for ids in PROMPTS:
            before, after = plain.logits(plain.tiny("gpt2"), ids), by_hand(ids, layer, head, [1, 2], 0.1)
            gap = after - before
            moved.append(float(gap[plain.TARGET] - gap[plain.CONTRAST]))
        assert found.values[layer, head] == pytest.approx(np.mean(moved), abs=1e-8)
        assert abs(np.mean(moved)) > 1e-6


def test_share_one_changes_nothing_and_rows_sum_to_one() -> None:
    subject = pellucid.load(plain.tiny("llama"))
    row = [Row(tuple(plain.IDS))]
    same = subject.with_(*emphasis([(0, 1), (1, 0)], [2], 1.0))
    np.testing.assert_allclose(forward(same, row).logits, forward(subject, row).logits, atol=1e-12)
    turned = subject.with_(*emphasis([(0, 1)], [2], 0.01))
    pattern = forward(turned, row, capture=["blocks.0.attn.pattern"]).captured["blocks.0.attn.pattern"][0]
    np.testing.assert_allclose(pattern.sum(-1), 1, atol=1e-12)
    assert (pattern[1, 2:, 2] > 0.8).all()


def test_a_part_that_does_not_occur_is_refused() -> None:
    subject = pellucid.load(plain.tiny("gpt2"))
    with pytest.raises(InputError, match="is not in the prompt"):
        pasta(subject, PROMPTS, [(9, 9)] * 3, [1, 1, 1])
    with pytest.raises(InputError, match="one of each per prompt"):
        pasta(subject, PROMPTS, [(0, 1)], [1, 1, 1])
