"""Attention change against the patterns of Hugging Face, traced by hand, and its sums."""

from typing import Any

import numpy as np
import pytest
import torch

import pellucid
from pellucid.core.errors import InputError
from pellucid.methods.attention.attention_change import attention_change
from tests import plain


def traced(model: Any, token: int) -> np.ndarray:
    model.set_attn_implementation("eager")
    with torch.no_grad():
        patterns = model(input_ids=torch.tensor([plain.IDS]), output_attentions=True).attentions
    model.set_attn_implementation("sdpa")
    first, second = (pattern[0].mean(0).double() / 2 + torch.eye(6) / 2 for pattern in patterns)
    return np.stack([(second @ first)[token].numpy(), second[token].numpy()])


def test_shares_of_two_models_and_their_difference() -> None:
    one, two = plain.tiny("llama"), plain.tiny("llama")
    with torch.no_grad():
        two.model.layers[0].self_attn.q_proj.weight.mul_(-3.0)
    expected = traced(one, 4), traced(two, 4)
    found = attention_change([pellucid.load(one), pellucid.load(two)], plain.IDS, token=4)
    np.testing.assert_allclose(found.scores[:2], np.stack(expected), atol=1e-6)
    np.testing.assert_allclose(found.scores[2], expected[1] - expected[0], atol=1e-6)
    np.testing.assert_allclose(found.scores.sum(-1), [[1, 1], [1, 1], [0, 0]], atol=1e-6)
    assert found.evidence[0].values["layer 0"] > found.evidence[0].values["layer 1"], "only layer 0 was changed"
    assert found.provenance.forwards == 2


def test_an_edited_view_is_a_second_model() -> None:
    """A head whose attention is sent back to the token itself takes nothing from the others."""
    subject = pellucid.load(plain.tiny("gpt2"))
    still = subject.with_(pellucid.Edit("blocks.1.attn.pattern", "set", torch.eye(6)))
    found = attention_change([subject, still], plain.IDS, residual=False)
    np.testing.assert_allclose(found.scores[1, 1], np.eye(6)[5])
    assert found.scores[2, 1, 5] > 0


def test_what_cannot_be_compared_is_refused() -> None:
    subject = pellucid.load(plain.tiny("gpt2"))
    with pytest.raises(InputError, match="two models, but got 1"):
        attention_change([subject], plain.IDS)
    with pytest.raises(InputError, match="no position 6"):
        attention_change([subject, subject], plain.IDS, token=6)
