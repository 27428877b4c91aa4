"""The future lens against least squares by NumPy, and on a text whose future is certain."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import pellucid
from pellucid.core.errors import InputError
from pellucid.methods.reading.future_lens import future_lens
from pellucid.methods.reading.logit_lens import logit_lens
from pellucid.zoo.tasks import training_documents
from tests import plain

RNG = np.random.default_rng(0)
PROMPTS = [RNG.integers(0, 100, 12).tolist() for _ in range(12)]


@pytest.mark.parametrize("ahead", [0, 2])
def test_equals_least_squares(ahead: int) -> None:
    model = plain.tiny("gpt2")
    inputs, aims = [], []
    for ids in PROMPTS:
        seen: list[torch.Tensor] = []
        handles = [
            b.register_forward_hook(lambda _, __, out, seen=seen: seen.append(out[0])) for b in model.transformer.h
        ]
        with torch.no_grad():
            model(input_ids=torch.tensor([ids]))
        for handle in handles:
            handle.remove()
        inputs.append(seen[0][: len(ids) - ahead].numpy())
        aims.append(seen[1][ahead:].numpy())
    x, y = np.concatenate(inputs), np.concatenate(aims)
    # A ridge on W with a free intercept is least squares with rows of zeros added, on centred data.
    middle = x - x.mean(0)
    ridge = np.sqrt(0.01 * (middle**2).sum(0).mean()) * np.eye(32)
    expected = np.linalg.lstsq(np.vstack([middle, ridge]), np.vstack([y - y.mean(0), 0 * ridge]), rcond=None)[0]
    found = future_lens(pellucid.load(model), PROMPTS, ahead=ahead, test_share=0.0)
    np.testing.assert_allclose(found.tensors["matrices"][0] + np.eye(32), expected, atol=1e-8)
    np.testing.assert_allclose(found.tensors["biases"][0], y.mean(0) - x.mean(0) @ expected, atol=1e-8)
    assert found.settings["positions"] == len(x)


def test_the_last_layer_and_no_step_ahead_is_the_model() -> None:
    subject = pellucid.load(plain.tiny("llama"))
    lens = future_lens(subject, PROMPTS, ahead=0, penalty=0.0)
    assert lens.evidence[0].curves["agreement"][-1] == 1.0
    found = logit_lens(subject, PROMPTS[0], target=3, lens=lens)
    np.testing.assert_allclose(found.scores[-1], logit_lens(subject, PROMPTS[0], target=3).scores[-1], atol=1e-4)


def test_reads_further_ahead_than_chance_on_the_zoo_model() -> None:
    subject = pellucid.load("zoo:tiny-lm")
    texts = [document.text for document in training_documents("future", 150)]
    evidence = future_lens(subject, texts, ahead=1, penalty=0.03).evidence[0]
    assert evidence.ok
    assert evidence.values["best"] > 2 * evidence.values["commonest"]


def test_prompts_that_are_too_short_are_refused() -> None:
    with pytest.raises(InputError, match="looks 12 positions ahead"):
        future_lens(pellucid.load(plain.tiny("gpt2")), PROMPTS, ahead=12)
