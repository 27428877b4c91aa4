"""Attention rollout against the product of Hugging Face's own attention matrices."""

import numpy as np
import pytest
import torch

import pellucid
from pellucid.methods.attention.attention_rollout import attention_rollout
from tests import plain


@pytest.mark.parametrize("name", ["gpt2", "llama", "bloom"])
def test_equals_the_product_of_patterns(name: str) -> None:
    model = plain.tiny(name)
    model.set_attn_implementation("eager")
    with torch.no_grad():
        patterns = model(input_ids=torch.tensor([plain.IDS]), output_attentions=True).attentions
    total = torch.eye(6, dtype=torch.float64)
    for pattern in patterns:
        total = (0.5 * pattern[0].mean(0) + 0.5 * torch.eye(6, dtype=torch.float64)) @ total
    model.set_attn_implementation("eager" if name == "bloom" else "sdpa")
    found = attention_rollout(pellucid.load(model), plain.IDS, target=plain.TARGET)
    np.testing.assert_allclose(found.scores, total[-1].numpy(), atol=1e-9)
    assert found.scores.sum() == pytest.approx(1)
