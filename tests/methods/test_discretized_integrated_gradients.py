"""Discretised integrated gradients: the path of the paper by hand, that it never turns back, and completeness."""

from itertools import pairwise

import numpy as np
import pytest
import torch

import pellucid
from pellucid.engine.question import ask
from pellucid.methods.attribution.discretized_integrated_gradients import _path, discretized_integrated_gradients
from pellucid.methods.attribution.integrated_gradients import integrated_gradients
from tests import plain


def by_hand(words: np.ndarray, word: int, base: np.ndarray, steps: int, near: int, strategy: str) -> list[np.ndarray]:
    """One word's path, dimension by dimension."""

    def onwards(now: np.ndarray, anchor: np.ndarray) -> np.ndarray:
        point = anchor.copy()
        for d in range(len(point)):
            if not min(now[d], base[d]) <= anchor[d] <= max(now[d], base[d]):
                point[d] = now[d] - (now[d] - base[d]) / steps
        return point

    points, passed = [words[word]], [word]
    for _ in range(steps):
        order = sorted(range(len(words)), key=lambda w: np.linalg.norm(words[w] - words[passed[-1]]))
        candidates = [w for w in order if w not in passed and not np.array_equal(words[w], base)][:near]
        if strategy == "greedy":
            best = min(candidates, key=lambda w: np.linalg.norm(words[w] - onwards(words[passed[-1]], words[w])))
        else:
            best = min(candidates, key=lambda w: int((words[w] != onwards(words[passed[-1]], words[w])).sum()))
        passed.append(best)
        points.append(onwards(points[-1], words[best]))
    return [*points, base]


@pytest.mark.parametrize("strategy", ["greedy", "maxcount"])
def test_the_path_is_that_of_the_paper(strategy: str) -> None:
    model = plain.tiny()
    question = ask(pellucid.load(model), plain.IDS, target=plain.TARGET)
    words = model.get_input_embeddings().weight.detach()
    start, end = words[[3] * 6], words[plain.IDS]
    points = _path(question, start, end, 5, 7, strategy)
    assert points.shape == (7, 6, 32)
    for position, word in enumerate(plain.IDS):
        expected = by_hand(words.numpy(), word, words[3].numpy(), 5, 7, strategy)[::-1]
        if strategy == "greedy":
            np.testing.assert_allclose(points[:, position].numpy(), expected, atol=1e-12)
        assert torch.equal(points[0, position], words[3])
        assert torch.equal(points[-1, position], words[word])
        way = points[:, position].diff(dim=0) * (words[word] - words[3])
        assert (way >= -1e-12).all(), "a dimension turned back"


def test_adds_up_and_refines_to_completeness() -> None:
    model = plain.tiny()
    found = discretized_integrated_gradients(
        pellucid.load(model), plain.IDS, target=plain.TARGET, baseline=3, steps=8, refine=8
    )
    difference = float(plain.logits(model, plain.IDS)[plain.TARGET] - plain.logits(model, [3] * 6)[plain.TARGET])
    assert found.scores.sum() == pytest.approx(difference, rel=1e-3)
    assert found.evidence[0].ok


def test_is_the_line_integral_along_its_path() -> None:
    model = plain.tiny()
    subject = pellucid.load(model)
    question = ask(subject, plain.IDS, target=plain.TARGET)
    words = model.get_input_embeddings().weight.detach()
    points = _path(question, words[[3] * 6], words[plain.IDS], 4, 50, "greedy")
    total = np.zeros(6)
    for low, high in pairwise(points):
        middle = ((low + high) / 2).requires_grad_()
        plain.from_embeddings(model, middle)[plain.TARGET].backward()
        assert middle.grad is not None
        total += (middle.grad * (high - low)).sum(-1).detach().numpy()
    found = discretized_integrated_gradients(subject, plain.IDS, target=plain.TARGET, baseline=3, steps=4, refine=1)
    np.testing.assert_allclose(found.scores, total, atol=1e-10)


def test_is_not_the_straight_line() -> None:
    subject = pellucid.load(plain.tiny("llama"))
    near = discretized_integrated_gradients(subject, plain.IDS, target=plain.TARGET, baseline=3, refine=4)
    straight = integrated_gradients(subject, plain.IDS, target=plain.TARGET, baseline=3)
    assert near.scores.sum() == pytest.approx(straight.scores.sum(), abs=0.05)
    assert np.abs(near.scores - straight.scores).max() > 1e-3
