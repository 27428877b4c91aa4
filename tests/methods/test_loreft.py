"""LoReFT: the start changes nothing, the first gradients by hand, and on the zoo's model a rule is learned."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
import torch

import pellucid
from pellucid.core.errors import CapabilityError, InputError
from pellucid.engine.live_edits import live
from pellucid.engine.steering import Steering
from pellucid.methods.steering.loreft import loreft
from pellucid.models.batch import Row
from pellucid.models.forward import forward
from pellucid.zoo import world
from pellucid.zoo.tasks import sentiment
from tests import plain
from tests.state import model_state
from tests.tiny import TINY

PROMPTS, ANSWERS = [[11, 42, 7], [23, 64], [3, 9, 5]], [[17], [17, 4], [17]]


def by_hand(found: Any, ids: list[int], position: int) -> torch.Tensor:
    """Return GPT-2's logits with the rewriting behind its second block, as plainly as PyTorch allows."""
    model = plain.tiny("gpt2")
    r, w, b = (torch.as_tensor(found.tensors[name][0]) for name in ("rotations", "sources", "biases"))

    def hook(module: Any, args: Any, output: Any) -> Any:
        value = (output[0] if isinstance(output, tuple) else output).clone()
        h = value[0, position]
        value[0, position] = h + r.T @ (w @ h + b - r @ h)
        return (value, *output[1:]) if isinstance(output, tuple) else value

    model.transformer.h[1].register_forward_hook(hook)
    with torch.no_grad():
        logits: torch.Tensor = model(input_ids=torch.tensor([ids])).logits[0]
    return logits


def test_learns_to_answer_and_is_applied_as_learned() -> None:
    subject = pellucid.load(plain.tiny("gpt2"))
    before = model_state(subject.model)
    found = loreft(subject, PROMPTS, ANSWERS, rank=2, steps=15, test_share=0.0)
    assert model_state(subject.model) == before
    np.testing.assert_allclose(found.tensors["rotations"][0] @ found.tensors["rotations"][0].T, np.eye(2), atol=1e-9)
    told = found.evidence[0]
    assert told.values["after"] < told.values["before"] - 0.1
    losses = []
    for prompt, answer in zip(PROMPTS, ANSWERS, strict=True):
        logits = by_hand(found, [*prompt, *answer], len(prompt) - 1)[len(prompt) - 1 : -1].log_softmax(-1)
        losses.append(-np.mean([float(logits[k, token]) for k, token in enumerate(answer)]))
    assert told.values["after"] == pytest.approx(np.mean(losses), abs=1e-8)
    steered = subject.with_(*Steering(found).edits(subject))
    row = [Row(tuple(PROMPTS[0]))]
    np.testing.assert_allclose(forward(steered, row).logits[0], by_hand(found, PROMPTS[0], -1), atol=1e-9)
    with live(steered) as model, torch.no_grad():
        native = model(input_ids=torch.tensor([PROMPTS[0]])).logits[0]
    np.testing.assert_allclose(native, by_hand(found, PROMPTS[0], -1), atol=1e-9)
    none = subject.with_(*Steering(found, 0.0).edits(subject))
    assert torch.equal(forward(none, row).logits, forward(subject, row).logits)


def test_starts_from_the_identity() -> None:
    subject = pellucid.load(plain.tiny("gpt2"))
    found = loreft(subject, PROMPTS, ANSWERS, steps=1, learning_rate=1e-12, test_share=0.0)
    assert found.evidence[0].values["after"] == pytest.approx(found.evidence[0].values["before"], abs=1e-9)


@pytest.mark.slow
def test_turns_the_named_sentiment_round_on_reviews_not_learned_from() -> None:
    subject, rng = pellucid.load("zoo:tiny-lm"), random.Random(0)
    items = [world.prompt_of(sentiment(rng, True).marked) for _ in range(20)]
    other = {"positive": " negative", "negative": " positive"}
    found = loreft(subject, [p for p, _ in items], [other[a.strip()] for _, a in items], steps=25, learning_rate=0.05)
    assert found.evidence[0].values["before"] > 2
    assert found.evidence[0].values["after"] < 1


def test_errors_say_what_to_do() -> None:
    subject = pellucid.load(plain.tiny("gpt2"))
    with pytest.raises(InputError, match="one for each"):
        loreft(subject, PROMPTS, ANSWERS[:1])
    with pytest.raises(InputError, match="NaN or infinite"):
        loreft(subject, PROMPTS, ANSWERS, learning_rate=1e300, steps=4)
    with pytest.raises(InputError, match="at most that"):
        loreft(subject, PROMPTS, ANSWERS, rank=33)
    with pytest.raises(CapabilityError, match="learns from continuations"):
        loreft(pellucid.load(TINY["bert"]()), PROMPTS, ANSWERS)
