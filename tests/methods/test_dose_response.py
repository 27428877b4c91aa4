"""Dose-response: nothing at zero, single doses by hand, and a direction that works against one that does not."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import pellucid
from pellucid.core.errors import CapabilityError, InputError
from pellucid.core.results import Scores
from pellucid.engine.steering import Steering
from pellucid.methods.steering.dose_response import dose_response
from pellucid.methods.steering.mean_difference import mean_difference
from tests import plain
from tests.tiny import TINY

POSITIVE, NEGATIVE = [[11, 42, 7, 5], [23, 64, 5], [3, 9]], [[8, 1, 2, 77], [50, 51, 52], [33, 17]]
NEUTRAL = [[4, 8, 15, 16, 23], [42, 4, 8]]


def native(dose: float, direction: np.ndarray, scale: float, ids: list[int]) -> torch.Tensor:
    """Return GPT-2's logits with a vector added behind its first block, as plainly as PyTorch allows."""
    model = plain.tiny("gpt2")

    def add(module: object, args: object, output: object) -> object:
        shift = dose * scale * torch.as_tensor(direction)
        return (output[0] + shift, *output[1:]) if isinstance(output, tuple) else output + shift  # type: ignore[operator]

    handle = model.transformer.h[0].register_forward_hook(add)
    with torch.no_grad():
        logits: torch.Tensor = model(input_ids=torch.tensor([ids])).logits[0]
    handle.remove()
    return logits


def test_every_dose_by_hand() -> None:
    subject = pellucid.load(plain.tiny("gpt2"))
    learned = mean_difference(subject, POSITIVE, NEGATIVE)
    found = dose_response(
        subject, NEGATIVE, Steering(learned, layers=[0]), neutral=NEUTRAL, target=17, contrast=33,
        coefficients=(-1, 1), random_directions=2,
    )  # fmt: skip
    behaviour, divergence, perplexity = (r for r in found.results if isinstance(r, Scores))
    assert behaviour.labels["step"] == ("-1", "0", "1")
    vector, scale = learned.tensors["directions"][0], float(learned.tensors["scales"][0])
    for number, dose in enumerate((-1.0, 0.0, 1.0)):
        gaps = [float((lambda z: z[17] - z[33])(native(dose, vector, scale, ids)[-1])) for ids in NEGATIVE]
        assert behaviour.values[0, number] == pytest.approx(np.mean(gaps), abs=1e-8)
        kls, losses = [], []
        for ids in NEUTRAL:
            own, said = (native(d, vector, scale, ids)[:-1].log_softmax(-1) for d in (0.0, dose))
            kls.append(float((own.exp() * (own - said)).sum(-1).mean()))
            losses.append(float(-said[range(len(ids) - 1), ids[1:]].mean()))
        assert divergence.values[0, number] == pytest.approx(np.mean(kls), abs=1e-9)
        assert perplexity.values[0, number] == pytest.approx(np.exp(np.mean(losses)), rel=1e-9)
    np.testing.assert_allclose(divergence.values[:, 1], 0, atol=1e-12)
    assert behaviour.values[0, 1] == behaviour.values[1, 1]
    low, high = (behaviour.evidence[0].curves[f"steered_{end}"] for end in ("low", "high"))
    assert all(a <= b <= c for a, b, c in zip(low, behaviour.values[0], high, strict=True))
    assert "Behaviour" in found.html()
    assert "<svg" in found.html()


def test_the_generation_phase_acts_behind_the_first_token_of_neutral_text() -> None:
    subject = pellucid.load(plain.tiny("gpt2"))
    learned = mean_difference(subject, POSITIVE, NEGATIVE)
    steering = Steering(learned, phase="generation")
    found = dose_response(
        subject, NEGATIVE, steering, neutral=NEUTRAL, target=17, coefficients=(1,), random_directions=1
    )
    behaviour, divergence, _ = (r for r in found.results if isinstance(r, Scores))
    assert behaviour.values[0, 1] == behaviour.values[0, 0]
    assert divergence.values[0, 1] > 1e-6


def test_errors_say_what_to_do() -> None:
    subject = pellucid.load(plain.tiny("gpt2"))
    learned = mean_difference(subject, POSITIVE, NEGATIVE)
    with pytest.raises(InputError, match="as neutral"):
        dose_response(subject, NEGATIVE, learned, neutral=[])
    with pytest.raises(InputError, match="give a Steering"):
        dose_response(subject, NEGATIVE, "up", neutral=NEUTRAL)
    with pytest.raises(InputError, match="fewer than two tokens"):
        dose_response(subject, NEGATIVE, learned, neutral=[[4]], target=17)
    with pytest.raises(CapabilityError, match="measures text"):
        dose_response(pellucid.load(TINY["bert"]()), NEGATIVE, learned, neutral=NEUTRAL)
