"""Conditional steering: the threshold by trying all, and on the zoo's model only one kind of prompt is steered."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from sklearn.metrics import f1_score

import pellucid
from pellucid.engine.directions import activations
from pellucid.engine.steering import Steering
from pellucid.methods.steering.conditional_steering import conditional_steering
from pellucid.methods.steering.mean_difference import mean_difference
from pellucid.models.batch import Row
from pellucid.models.forward import forward
from pellucid.zoo import world
from pellucid.zoo.tasks import fact, sentiment
from tests import plain

POSITIVE, NEGATIVE = [[i, 11 + i, 5] for i in range(6)], [[i + 3, 12 + i, 7] for i in range(6)]


@pytest.mark.slow
def test_layer_and_threshold_have_the_largest_f1() -> None:
    subject = pellucid.load(plain.tiny("gpt2"))
    found = conditional_steering(subject, POSITIVE, NEGATIVE, test_share=0.0)
    values = activations(subject, [*POSITIVE, *NEGATIVE], "resid_post", position="mean").values
    labels = np.repeat([1, 0], 6)
    best = 0.0
    for layer in range(2):
        c = values[layer, :6].mean(0) - values[layer, 6:].mean(0)
        cosines = values[layer] @ c / np.linalg.norm(c) / np.linalg.norm(values[layer], axis=1)
        best = max(
            best, *(f1_score(labels, cosines > t) for t in np.linspace(cosines.min() - 1e-9, cosines.max(), 999))
        )
    assert found.evidence[0].values["f1"] >= best - 1e-12
    assert found.evidence[0].values["f1"] == pytest.approx(best, abs=0.05)


def test_steers_reviews_and_leaves_facts_alone() -> None:
    subject, rng = pellucid.load("zoo:tiny-lm"), random.Random(0)
    told: dict[str, list[str]] = {"negative": [], "positive": []}
    while min(map(len, told.values())) < 10:
        prompt, answer = world.prompt_of(sentiment(rng, True).marked)
        told[answer.strip()].append(prompt)
    reviews = [*told["negative"][:10], *told["positive"][:10]]
    facts = [world.prompt_of(fact(rng, True).marked)[0] for _ in range(20)]
    condition = conditional_steering(subject, reviews, facts, layers=[0, 1, 2])
    assert condition.evidence[0].values["steered"] == 1.0
    assert condition.evidence[0].values["others"] == 0.0
    direction = mean_difference(subject, told["positive"][:10], told["negative"][:10], layers=[3])
    steered = subject.with_(*Steering(direction, 1.0, condition=condition).edits(subject))
    rows = [Row(ids, prompt_length=len(ids)) for ids in (subject.encode(p).ids for p in (reviews[0], facts[0]))]
    before, after = (forward(one, rows).logits for one in (subject, steered))
    assert (after[0] - before[0]).abs().max() > 1
    assert torch.equal(after[1, : len(rows[1].ids)], before[1, : len(rows[1].ids)])
