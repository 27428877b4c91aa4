"""The tuned lens against each layer trained alone by hand, and on the zoo's model against the logit lens."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import pellucid
from pellucid.core.errors import CapabilityError, InputError
from pellucid.methods.reading.logit_lens import logit_lens
from pellucid.methods.reading.tuned_lens import tuned_lens
from pellucid.zoo.tasks import training_documents
from tests import plain

PROMPTS = [plain.IDS, [3, 9, 81, 2, 40], [7, 7, 12, 55]]


def by_hand(layer: int, steps: int, rate: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Train one layer's translator of GPT-2 alone, on all positions of the prompts."""
    model = plain.tiny("gpt2")
    streams, aims = [], []
    for ids in PROMPTS:
        with torch.no_grad():
            output = model(input_ids=torch.tensor([ids]), output_hidden_states=True)
        streams.append(output.hidden_states[layer + 1][0])
        aims.append(output.logits[0].log_softmax(-1))
    x, aim = torch.cat(streams), torch.cat(aims)
    matrix = torch.zeros(32, 32, dtype=torch.float64, requires_grad=True)
    bias = torch.zeros(32, dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.Adam([matrix, bias], lr=rate)
    for step in range(steps):
        optimiser.param_groups[0]["lr"] = rate * (1 - step / steps)
        said = model.lm_head(model.transformer.ln_f(x + x @ matrix + bias)).log_softmax(-1)
        loss = torch.nn.functional.kl_div(said, aim, log_target=True, reduction="batchmean")
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return matrix.detach(), bias.detach()


def test_layers_trained_together_equal_a_layer_trained_alone() -> None:
    subject = pellucid.load(plain.tiny("gpt2"))
    found = tuned_lens(subject, PROMPTS, steps=5, learning_rate=0.01, test_share=0.0)
    matrix, bias = by_hand(0, 5, 0.01)
    assert found.tensors["matrices"].shape == (2, 32, 32)
    np.testing.assert_allclose(found.tensors["matrices"][0], matrix, atol=1e-6)
    np.testing.assert_allclose(found.tensors["biases"][0], bias, atol=1e-6)
    np.testing.assert_array_equal(found.tensors["matrices"][1], 0)
    assert np.abs(found.tensors["matrices"][0]).max() > 0.01
    before = tuned_lens(subject, PROMPTS, site="resid_pre", steps=5, learning_rate=0.01, test_share=0.0)
    np.testing.assert_allclose(before.tensors["matrices"][1], found.tensors["matrices"][0], atol=1e-6)


@pytest.fixture(scope="module")
def tiny_lm() -> pellucid.Subject:
    """Load the zoo's language model once."""
    return pellucid.load("zoo:tiny-lm")


def test_comes_nearer_to_the_model_than_the_logit_lens_in_every_layer_below_the_last(tiny_lm: pellucid.Subject) -> None:
    texts = [document.text for document in training_documents("tuned lens", 40)]
    lens = tuned_lens(tiny_lm, texts, steps=30, batch=64, learning_rate=0.01)
    curves = lens.evidence[0].curves
    assert all(
        tuned < 0.7 * logit for tuned, logit in zip(curves["tuned"][:-1], curves["logit lens"][:-1], strict=True)
    )
    assert curves["tuned"][-1] == pytest.approx(0, abs=1e-9)
    new = next(document.text for document in training_documents("another seed", 5))
    target = logit_lens(tiny_lm, new).words
    assert target is not None
    read = [logit_lens(tiny_lm, new, lens=given, target=5) for given in (None, lens)]
    said = np.array(read[0].words).reshape(read[0].scores.shape)[-1]
    right = [(np.array(one.words).reshape(one.scores.shape)[:-1] == said).mean() for one in read]
    assert right[1] > right[0]


def test_the_same_seed_gives_the_same_lens_and_it_goes_through_the_disk(tmp_path: object) -> None:
    subject = pellucid.load(plain.tiny("bert-masked-lm"))
    first, second = (tuned_lens(subject, PROMPTS, steps=3, batch=4, seed=1) for _ in range(2))
    np.testing.assert_array_equal(first.tensors["matrices"], second.tensors["matrices"])
    opened = pellucid.open(first.save(f"{tmp_path}/lens"))
    np.testing.assert_array_equal(opened.tensors["biases"], first.tensors["biases"])
    assert opened.evidence == first.evidence
    assert first.provenance.forwards == 3


def test_what_it_cannot_learn_from_is_refused() -> None:
    with pytest.raises(CapabilityError, match="one stack"):
        tuned_lens(pellucid.load(plain.tiny("t5")), PROMPTS)
    with pytest.raises(CapabilityError, match="classification"):
        tuned_lens(pellucid.load(plain.tiny("bert-classifier")), PROMPTS)
    with pytest.raises(InputError, match="list of prompts"):
        tuned_lens(pellucid.load(plain.tiny("gpt2")), [])
