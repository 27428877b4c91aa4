"""Refusal direction: its three scores by hooks on the native model, and on a model that names sentiments."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
import torch

import pellucid
from pellucid.core.errors import InputError, TargetError
from pellucid.engine.directions import activations, held_out
from pellucid.methods.steering.refusal_direction import refusal_direction
from pellucid.zoo import world
from pellucid.zoo.tasks import sentiment
from tests import plain

HARMFUL, HARMLESS = [[i, 11 + i, 5] for i in range(4)], [[i + 40, 11 + i, 7] for i in range(4)]
TOKENS = [17, 33]


def native(ids: list[int], vector: np.ndarray, layer: int | None) -> torch.Tensor:
    """Return log-probabilities of GPT-2 with a vector added behind a block, or (None) taken out of every write."""
    model, v = plain.tiny("gpt2"), torch.as_tensor(vector)
    r = v / v.norm()

    def change(module: Any, args: Any, output: Any) -> Any:
        first = output[0] if isinstance(output, tuple) else output
        new = first + v if layer is not None else first - (first @ r)[..., None] * r
        return (new, *output[1:]) if isinstance(output, tuple) else new

    places = [model.transformer.h[layer]] if layer is not None else [
        model.transformer.drop, *(m for b in model.transformer.h for m in (b.attn, b.mlp)),
    ]  # fmt: skip
    for module in places:
        module.register_forward_hook(change)
    with torch.no_grad():
        found: torch.Tensor = model(input_ids=torch.tensor([ids])).logits[0, -1].log_softmax(-1)
    return found


def odds(log_probs: torch.Tensor) -> float:
    """Return the log-odds of the tokens."""
    p = log_probs[TOKENS].exp().sum()
    return float(torch.log(p / (1 - p)))


def test_scores_of_every_candidate_by_hand() -> None:
    subject = pellucid.load(plain.tiny("gpt2"))
    found = refusal_direction(subject, HARMFUL, HARMLESS, refusal=TOKENS, most_divergence=1e9)
    held = held_out(np.repeat([1, 0], 4), 0.25, 0)
    values = activations(subject, [*HARMFUL, *HARMLESS], "resid_post").values
    bad, good = ([p for p, h in zip(some, part, strict=True) if h] for some, part in (
        (HARMFUL, held[:4]), (HARMLESS, held[4:])))  # fmt: skip
    told = found.evidence[0].curves
    for layer in range(2):
        one, none = values[layer, :4][~held[:4]], values[layer, 4:][~held[4:]]
        r = one.mean(0) - none.mean(0)
        assert told["bypass"][layer] == pytest.approx(np.mean([odds(native(ids, r, None)) for ids in bad]), abs=1e-8)
        assert told["induce"][layer] == pytest.approx(np.mean([odds(native(ids, r, layer)) for ids in good]), abs=1e-8)
        kls = []
        for ids in good:
            own, other = native(ids, 0 * r + 1e-300, 0), native(ids, r, None)
            kls.append(float((own.exp() * (own - other)).sum()))
        assert told["divergence"][layer] == pytest.approx(np.mean(kls), abs=1e-8)
        np.testing.assert_allclose(found.tensors["scales"][layer], np.linalg.norm(r), rtol=1e-9)


def test_finds_the_direction_that_carries_a_sentiment() -> None:
    subject, rng = pellucid.load("zoo:tiny-lm"), random.Random(0)
    told: dict[str, list[str]] = {"negative": [], "positive": []}
    while min(map(len, told.values())) < 12:
        prompt, answer = world.prompt_of(sentiment(rng, True).marked)
        told[answer.strip()].append(prompt)
    found = refusal_direction(
        subject, told["negative"][:12], told["positive"][:12], refusal=[" negative"], layers=[1, 2, 3],
        most_divergence=20.0,
    )  # fmt: skip
    values = found.evidence[0].values
    assert values["harmful"] > 2
    assert values["bypass"] < values["harmful"] - 2
    assert values["induce"] > values["harmless"] + 2


def test_errors_say_what_to_do() -> None:
    subject = pellucid.load(plain.tiny("gpt2"))
    with pytest.raises(InputError, match="at least four of each"):
        refusal_direction(subject, HARMFUL[:2], HARMLESS[:2], refusal=TOKENS)
    with pytest.raises(TargetError, match="texts of one token"):
        refusal_direction(pellucid.load("zoo:tiny-lm"), ["a"] * 4, ["b"] * 4, refusal=["no way at all"])
