"""TaSc: its parts against the formula written plainly, and what it refuses."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import pellucid
from pellucid.core.errors import InputError, TargetError
from pellucid.core.results import Learned
from pellucid.engine.capture import capture
from pellucid.methods.attention.task_scaled_attention import task_scaled_attention
from pellucid.methods.attention.task_scaled_head import task_scaled_head
from tests.tiny import TINY

GOOD, BAD = 90, 91


def task(count: int) -> tuple[list[list[int]], list[int]]:
    """Return prompts of random tokens in which one of two tokens decides the label."""
    rng = np.random.default_rng(0)
    prompts, labels = [], []
    for i in range(count):
        ids = rng.integers(5, 60, 8).tolist()
        ids[int(rng.integers(1, 7))] = GOOD if i % 2 else BAD
        prompts.append(ids)
        labels.append(i % 2)
    return prompts, labels


@pytest.fixture(scope="module")
def subject() -> pellucid.Subject:
    return pellucid.load(TINY["bert-classifier"]())


@pytest.fixture(scope="module")
def learned(subject: pellucid.Subject) -> Learned:
    return task_scaled_head(subject, *task(60), steps=40)


@pytest.mark.parametrize("scaling", ["lin", "feat", "conv", "none"])
def test_scores_are_attention_times_its_gradient(subject: pellucid.Subject, scaling: str) -> None:
    """The formula of the paper token by token, and the derivative of the logit by each attention weight."""
    prompts, labels = task(12)
    head = task_scaled_head(subject, prompts, labels, scaling=scaling, steps=5)
    t = {name: torch.from_numpy(np.array(value)) for name, value in head.tensors.items()}
    layers = subject.layers - 1
    sites = [f"blocks.{layers}.resid_post", "embed.token"]
    found = capture(subject, prompts[0], sites)
    states, embeddings = found[sites[0]], found["embed.token"]
    h = (states - t["mean"]) / t["spread"]
    scales = []
    for token, e in zip(subject.encode(prompts[0]).ids, embeddings, strict=True):
        place = t["ids"].tolist().index(token)
        u = t["scale"][place] if scaling != "none" else torch.tensor(1.0)
        if scaling == "conv":
            scales.append(sum(float(f @ (u * e)) + float(b) for f, b in zip(t["filters"], t["offsets"], strict=True)))
        else:
            scales.append(float((u * e).sum()) if scaling != "none" else 1.0)
    attention = torch.stack([row @ t["query"] / row.numel() ** 0.5 for row in h]).softmax(0).requires_grad_()
    pooled = sum(a * s * row for a, s, row in zip(attention, scales, h, strict=True))
    logit = (t["weights"] @ pooled + t["bias"])[1]
    [gradient] = torch.autograd.grad(logit, attention)
    scores = task_scaled_attention(subject, prompts[0], head=head, target=1, unit="token+special")
    np.testing.assert_allclose(scores.values, (attention * gradient).detach().numpy(), atol=1e-5)
    assert float(scores.values.sum() + t["bias"][1]) == pytest.approx(float(logit.detach()), abs=1e-5)


def test_it_is_saved_and_opened(subject: pellucid.Subject, learned: Learned, tmp_path: Path) -> None:
    opened: Any = pellucid.open(learned.save(tmp_path / "head"))
    ids = task(2)[0][0]
    first, second = (task_scaled_attention(subject, ids, head=one).values for one in (learned, opened))
    np.testing.assert_array_equal(first, second)


def test_a_type_that_was_not_learned_from_counts_nothing(subject: pellucid.Subject, learned: Learned) -> None:
    found = task_scaled_attention(subject, [*task(1)[0][0][:4], 95], head=learned)
    assert found.values[-1] == 0


def test_bad_input_is_refused(subject: pellucid.Subject, learned: Learned) -> None:
    prompts, _ = task(6)
    with pytest.raises(TargetError, match="classes 0 to 1"):
        task_scaled_attention(subject, prompts[0], head=learned, target=2)
    with pytest.raises(InputError, match="what task_scaled_head learned"):
        task_scaled_attention(pellucid.load("zoo:tiny-classifier"), "a fine film", head=learned)
