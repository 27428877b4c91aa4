"""The in-context learning score against losses by hand, and on planted heads."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import pellucid
from pellucid.core.errors import InputError
from pellucid.methods.reading.in_context_learning_score import in_context_learning_score
from tests import plain

PROMPTS = [[11, 42, 7, 23, 64, 5, 9, 30], [8, 3, 12, 42, 11, 60, 61, 2]]


def losses(model: Any, ids: list[int]) -> torch.Tensor:
    with torch.no_grad():
        log_probs = model(input_ids=torch.tensor([ids])).logits[0].log_softmax(-1)
    return -log_probs[:-1].gather(-1, torch.tensor(ids)[1:, None])[:, 0]


def test_score_and_ablation_by_hand() -> None:
    model = plain.tiny("gpt2")
    found = in_context_learning_score(pellucid.load(model), PROMPTS, early=2, late=6, around=2)
    per_prompt = [losses(model, ids) for ids in PROMPTS]
    plainly = [float(one[4:6].mean() - one[0:2].mean()) for one in per_prompt]  # loss i is of token i + 1
    assert found.evidence[0].values["score"] == pytest.approx(np.mean(plainly), abs=1e-9)

    projection = model.transformer.h[1].attn.c_proj
    mixes: list[torch.Tensor] = []
    handle = projection.register_forward_pre_hook(lambda _, args: mixes.append(args[0][0]))
    for ids in PROMPTS:
        losses(model, ids)
    handle.remove()
    width = mixes[0].shape[-1] // found.values.shape[1]
    mean = torch.cat(mixes)[:, width : 2 * width].mean(0)

    def ablate(_: Any, args: tuple[torch.Tensor]) -> tuple[torch.Tensor]:
        changed = args[0].clone()
        changed[..., width : 2 * width] = mean
        return (changed,)

    handle = projection.register_forward_pre_hook(ablate)
    without = [losses(model, ids) for ids in PROMPTS]
    handle.remove()
    lost = [float(one[4:6].mean() - one[0:2].mean()) - own for one, own in zip(without, plainly, strict=True)]
    assert found.values[1, 1] == pytest.approx(np.mean(lost), abs=1e-9)
    assert found.std_error is not None
    assert found.std_error[1, 1] == pytest.approx(np.std(lost, ddof=1) / np.sqrt(2), abs=1e-9)


def test_both_planted_heads_are_needed_and_no_other() -> None:
    red, blue, green = 3, 4, 5
    prompts = [[1, a, b, c, a, b, c] for a, b, c in ((red, blue, green), (green, red, blue), (blue, green, 6))]
    found = in_context_learning_score(pellucid.load("zoo:truth/induction"), prompts, early=3, late=6)
    assert found.evidence[0].ok
    assert found.values[0, 0] > 0.5 < found.values[1, 1]
    np.testing.assert_allclose([found.values[0, 1], found.values[1, 0]], 0, atol=1e-3)


def test_short_prompts_are_refused() -> None:
    subject = pellucid.load(plain.tiny("gpt2"))
    with pytest.raises(InputError, match="the longest has 8"):
        in_context_learning_score(subject, PROMPTS)
    with pytest.raises(InputError, match="must lie behind"):
        in_context_learning_score(subject, PROMPTS, early=5, late=5)
