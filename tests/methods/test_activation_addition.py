"""Activation addition against a hook on the native model that adds the difference to the first tokens."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import pellucid
from pellucid.core.errors import InputError
from pellucid.engine.live_edits import live
from pellucid.engine.steering import Steering
from pellucid.methods.steering.activation_addition import activation_addition
from pellucid.models.batch import Row
from pellucid.models.forward import forward
from tests import plain

CLEAN, CORRUPT = [1, 42, 7], [1, 5, 9]


def by_hand(ids: list[int], coefficient: float) -> torch.Tensor:
    """Return GPT-2's logits with the difference of two prompts added before its second block, at their positions."""
    model = plain.tiny("gpt2")
    with torch.no_grad():
        one, other = (model(input_ids=torch.tensor([p]), output_hidden_states=True).hidden_states[1][0]
                      for p in (CLEAN, CORRUPT))  # fmt: skip
    gap = coefficient * (one - other)

    def add(module: object, args: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        value = args[0].clone()
        value[0, : len(gap)] += gap
        return (value, *args[1:])

    model.transformer.h[1].register_forward_pre_hook(add)
    with torch.no_grad():
        logits: torch.Tensor = model(input_ids=torch.tensor([ids])).logits[0]
    return logits


def test_adds_the_difference_at_the_front() -> None:
    subject = pellucid.load(plain.tiny("gpt2"))
    learned = activation_addition(subject, CLEAN, CORRUPT)
    assert learned.settings["layer"] == 1
    assert learned.tensors["scales"][0, 0] == 0.0
    steered = subject.with_(*Steering(learned, 3.0).edits(subject))
    found = forward(steered, [Row(tuple(plain.IDS))]).logits[0]
    np.testing.assert_allclose(found, by_hand(plain.IDS, 3.0), atol=1e-9)
    with live(steered) as model, torch.no_grad():
        np.testing.assert_allclose(model(input_ids=torch.tensor([plain.IDS])).logits[0], found, atol=1e-9)
    none = subject.with_(*Steering(learned, 0.0).edits(subject))
    assert torch.equal(
        forward(none, [Row(tuple(plain.IDS))]).logits, forward(subject, [Row(tuple(plain.IDS))]).logits
    )  # fmt: skip


def test_prompts_of_different_length_are_refused() -> None:
    with pytest.raises(InputError, match="prompts of equal length"):
        activation_addition(pellucid.load(plain.tiny("gpt2")), CLEAN, [5, 9])
