"""Learned attention attribution: by hand from Hugging Face's patterns, and weights recovered where they are known."""

import numpy as np
import pytest
import torch

import pellucid
from pellucid.core.errors import InputError
from pellucid.core.results import Learned
from pellucid.engine.learned_attention import Removals, correlation, fit_heads
from pellucid.methods.attention.at2 import at2
from tests import plain

RESPONSE = [17, 33, 8]


def by_hand(theta: np.ndarray, ids: list[int], length: int) -> np.ndarray:
    """Return the scores of each token of the response: [tokens, targets]."""
    model = plain.tiny("llama")
    model.set_attn_implementation("eager")
    with torch.no_grad():
        output = model(input_ids=torch.tensor([[*ids, *RESPONSE[: length - 1]]]), output_attentions=True)
    scores = np.zeros((len(ids), length))
    for layer, pattern in enumerate(output.attentions):
        for head in range(pattern.shape[1]):
            for token in range(length):
                scores[:, token] += theta[layer, head] * pattern[0, head, len(ids) - 1 + token, : len(ids)].numpy()
    return scores


def test_scores_are_weighted_attention_from_the_places_where_the_response_is_predicted() -> None:
    theta = np.arange(8.0).reshape(2, 4) - 3
    subject, heads = pellucid.load(plain.tiny("llama")), Learned(tensors={"theta": theta})
    expected = by_hand(theta, plain.IDS, 3)
    each = at2(subject, plain.IDS, target=pellucid.Target.continuation(RESPONSE, each=True), heads=heads)
    np.testing.assert_allclose(each.scores, expected, atol=1e-6)  # Hugging Face takes its softmax in float32
    whole = at2(subject, plain.IDS, target=pellucid.Target.continuation(RESPONSE), heads=heads)
    np.testing.assert_allclose(whole.scores, each.scores.sum(1), atol=1e-12)
    assert whole.provenance.forwards == 1


def test_an_encoder_decoder_looks_from_its_decoder() -> None:
    model = plain.tiny("t5")
    theta = np.arange(8.0).reshape(2, 4) - 3
    target = pellucid.Target.continuation(RESPONSE[:2], each=True)
    found = at2(pellucid.load(model), plain.IDS, target=target, heads=Learned(tensors={"theta": theta}))
    model.set_attn_implementation("eager")
    with torch.no_grad():
        output = model(
            input_ids=torch.tensor([plain.IDS]),
            decoder_input_ids=torch.tensor([[model.config.decoder_start_token_id, RESPONSE[0]]]),
            output_attentions=True,
        )
    crossed = torch.stack([pattern[0] for pattern in output.cross_attentions]).double().numpy()
    np.testing.assert_allclose(found.scores, np.einsum("lh,lhtu->ut", theta, crossed), atol=1e-6)


def test_the_fit_recovers_weights_that_made_the_outcomes() -> None:
    rng = np.random.default_rng(0)
    theta = rng.normal(size=5)
    prompts = []
    for _ in range(4):
        attention, present = rng.random((9, 5)), rng.random((40, 9)) < 0.5
        prompts.append(Removals(attention, present, present @ attention @ theta - 7.0))
    found = fit_heads(prompts, 0.0)
    np.testing.assert_allclose(found, theta, atol=1e-3)
    assert correlation(prompts[0], found) == pytest.approx(1, abs=1e-6)


def test_heads_of_another_model_are_refused() -> None:
    subject = pellucid.load(plain.tiny("llama"))
    with pytest.raises(InputError, match="2 layers of 4 heads"):
        at2(subject, plain.IDS, target=17, heads=Learned(tensors={"theta": np.zeros((3, 4))}))
