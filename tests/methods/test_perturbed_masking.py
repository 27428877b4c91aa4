"""Perturbed masking against one plain forward per masked pair."""

import numpy as np
import pytest
import torch

import pellucid
from pellucid.core.errors import CapabilityError, InputError
from pellucid.methods.attribution.perturbed_masking import perturbed_masking
from tests import plain
from tests.minilm import minilm_folder

FILL = 3


def hidden(model: torch.nn.Module, gone: set[int], layer: int) -> torch.Tensor:
    ids = [FILL if i in gone else t for i, t in enumerate(plain.IDS)]
    with torch.no_grad():
        return model(input_ids=torch.tensor([ids]), output_hidden_states=True).hidden_states[layer][0]


def test_equals_the_definition_on_an_encoder() -> None:
    model = plain.tiny("bert-classifier")
    expected = np.zeros((6, 6))
    for i in range(6):
        for j in range(6):
            change = hidden(model, {i}, 1)[i] - hidden(model, {i, j}, 1)[i]
            expected[i, j] = float(change.norm())
    found = perturbed_masking(pellucid.load(model), plain.IDS, layer=0, replacement=FILL)
    np.testing.assert_allclose(found.scores, expected, atol=1e-10)
    assert found.provenance.forwards == 21


def test_units_of_several_tokens_take_the_mean() -> None:
    model = plain.tiny("bert-classifier")
    first, second = {0, 1}, {3, 4, 5}
    change = hidden(model, first, 2)[[0, 1]].mean(0) - hidden(model, first | second, 2)[[0, 1]].mean(0)
    found = perturbed_masking(pellucid.load(model), plain.IDS, unit=[(0, 2), (3, 6)], replacement=FILL)
    assert found.scores[0, 1] == pytest.approx(float(change.norm()), abs=1e-10)


def test_probabilities_of_a_masked_language_model() -> None:
    model = plain.tiny("bert-masked-lm")

    def probability(gone: set[int], i: int) -> float:
        ids = [FILL if k in gone else t for k, t in enumerate(plain.IDS)]
        with torch.no_grad():
            return float(model(input_ids=torch.tensor([ids])).logits[0, i].softmax(-1)[plain.IDS[i]])

    expected = [[probability({i}, i) - probability({i, j}, i) for j in range(6)] for i in range(6)]
    found = perturbed_masking(pellucid.load(model), plain.IDS, distance="prob", replacement=FILL)
    np.testing.assert_allclose(found.scores, expected, atol=1e-10)


def test_a_causal_model_does_not_look_ahead() -> None:
    found = perturbed_masking(pellucid.load(plain.tiny("llama")), plain.IDS, replacement=FILL)
    assert np.abs(np.triu(found.scores)).max() < 1e-10
    assert (found.scores[np.tril_indices(6, -1)] > 1e-6).all()


def test_the_tree_is_in_the_evidence() -> None:
    found = perturbed_masking(pellucid.load(plain.tiny("bert-classifier")), plain.IDS, replacement=FILL)
    heads = [int(h) for h in found.evidence[0].curves["head"]]
    weight = sum(found.scores[d, h] for d, h in enumerate(heads) if h >= 0)
    assert heads.count(-1) == 1
    assert found.evidence[0].values["weight"] == pytest.approx(weight)


def test_what_does_not_fit_is_refused() -> None:
    subject = pellucid.load(plain.tiny())
    with pytest.raises(CapabilityError, match="masked language model"):
        perturbed_masking(subject, plain.IDS, distance="prob")
    with pytest.raises(InputError, match="delete"):
        perturbed_masking(subject, plain.IDS, replacement="delete")
    with pytest.raises(InputError, match="Layer 7"):
        perturbed_masking(subject, plain.IDS, layer=7)


@pytest.mark.skipif(minilm_folder() is None, reason="the sentence model is not installed")
def test_the_first_block_of_a_real_encoder_looks_at_neighbours() -> None:
    """A trained model gathers a word's neighbourhood first; the sentence as a whole comes higher up."""
    found = perturbed_masking(
        pellucid.load(str(minilm_folder())), "the old man saw a very small dog", unit="word", layer=0
    )
    near = np.mean([found.scores[i, i + 1] + found.scores[i + 1, i] for i in range(7)]) / 2
    far = np.mean([found.scores[i, j] for i in range(8) for j in range(8) if abs(i - j) >= 4])
    assert near > 1.3 * far
