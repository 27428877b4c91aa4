"""Hidden token attribution against Jacobians by finite differences, and states that hold their own token alone."""

import numpy as np
import pytest
import torch

import pellucid
from pellucid import Edit
from pellucid.core.errors import InputError
from pellucid.methods.attention.hidden_token_attribution import hidden_token_attribution
from tests import plain


def test_equals_the_jacobian_by_finite_differences() -> None:
    model = plain.tiny()
    vectors = plain.embeddings(model, plain.IDS)

    def state(at: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            found = model(inputs_embeds=at[None], output_hidden_states=True).hidden_states[1]
        return found[0, 4]

    sizes = np.zeros(6)
    for position in range(6):
        for dimension in range(vectors.shape[1]):
            shift = torch.zeros_like(vectors)
            shift[position, dimension] = 1e-5
            sizes[position] += float(((state(vectors + shift) - state(vectors - shift)) / 2e-5).square().sum())
    expected = np.sqrt(sizes) / np.sqrt(sizes).sum()
    found = hidden_token_attribution(pellucid.load(model), plain.IDS, target=1, position=4, layers=[0])
    np.testing.assert_allclose(found.values[0], expected, atol=1e-7)
    assert found.values[0, 5] == 0  # what comes later cannot be held
    assert (found.values[0, :5] > 1e-4).all()


@pytest.mark.parametrize("name", ["gpt2", "bert-classifier", "t5"])
def test_shares_sum_to_one_in_every_layer(name: str) -> None:
    found = hidden_token_attribution(pellucid.load(plain.tiny(name)), plain.IDS, target=1)
    assert found.axes == ("layer", "unit")
    np.testing.assert_allclose(found.values.sum(1), 1, atol=1e-9)


def test_without_attention_a_state_holds_its_own_token_alone() -> None:
    subject = pellucid.load(plain.tiny())
    alone = subject.with_(*(Edit(f"blocks.{layer}.attn.pattern", "zero") for layer in range(2)))
    found = hidden_token_attribution(alone, plain.IDS, target=1, position=-3)
    np.testing.assert_allclose(found.values, [[0, 0, 0, 1, 0, 0]] * 2, atol=1e-12)


def test_refuses_a_position_beyond_the_prompt() -> None:
    with pytest.raises(InputError, match="0 to 5"):
        hidden_token_attribution(pellucid.load(plain.tiny()), plain.IDS, target=1, position=6)
