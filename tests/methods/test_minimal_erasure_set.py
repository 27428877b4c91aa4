"""Minimal erasure set against enumeration by hand, and on a linear model where the set is known."""

from itertools import combinations

import numpy as np
import pytest
import torch

import pellucid
from pellucid.core.errors import InputError, TargetError
from pellucid.methods.attribution.minimal_erasure_set import minimal_erasure_set
from tests import plain
from tests.linear import linear

CASES = [("opt", 6), ("opt", 5), ("opt", 11), ("llama", 3)]


def margin(model: torch.nn.Module, gone: tuple[int, ...], target: int, fill: int) -> float:
    logits = plain.logits(model, [fill if i in gone else t for i, t in enumerate(plain.IDS)]).clone()
    value = float(logits[target])
    logits[target] = -torch.inf
    return value - float(logits.max())


def smallest(model: torch.nn.Module, target: int, fill: int) -> int:
    before = margin(model, (), target, fill) > 0
    for size in range(1, 7):
        if any((margin(model, gone, target, fill) > 0) != before for gone in combinations(range(6), size)):
            return size
    return 0


@pytest.mark.parametrize(("name", "fill"), CASES)
def test_enumeration_finds_a_smallest_set(name: str, fill: int) -> None:
    model = plain.tiny(name)
    target = int(plain.logits(model, plain.IDS).argmax())
    expected = smallest(model, target, fill)
    found = minimal_erasure_set(pellucid.load(model), plain.IDS, replacement=fill, exact=True)
    gone = tuple(int(i) for i in np.flatnonzero(found.scores))
    assert expected > 0
    assert found.evidence[0].values["size"] == len(gone) == expected
    assert margin(model, (), target, fill) > 0 >= margin(model, gone, target, fill)
    difference = margin(model, (), target, fill) - margin(model, gone, target, fill)
    assert found.scores.sum() == pytest.approx(difference, abs=1e-10)


@pytest.mark.parametrize(("name", "fill"), CASES)
def test_greedy_leaves_no_needless_unit(name: str, fill: int) -> None:
    model = plain.tiny(name)
    target = int(plain.logits(model, plain.IDS).argmax())
    found = minimal_erasure_set(pellucid.load(model), plain.IDS, replacement=fill)
    gone = tuple(int(i) for i in np.flatnonzero(found.scores))
    assert margin(model, gone, target, fill) < 0
    for back in gone:
        assert len(gone) == 1 or margin(model, tuple(i for i in gone if i != back), target, fill) >= 0
    assert len(gone) >= smallest(model, target, fill)


def test_a_linear_model_loses_its_votes() -> None:
    """Three reds against one blue: two removed reds tie, the third decides; each is worth its own weight."""
    model = linear()
    for exact in (False, True):
        found = minimal_erasure_set(model.subject, model.ids, replacement=model.blank, exact=exact, **model.asked)
        gone = found.scores != 0
        np.testing.assert_allclose(found.scores[gone], model.weights[gone], atol=1e-5)
        assert gone.sum() == 3
        assert found.evidence[0].ok


def test_greedy_takes_the_largest_step_and_puts_back_what_it_did_not_need() -> None:
    def one_word_decides(texts: list[str]) -> list[list[float]]:
        return [[1 - 0.6 * ("p" not in t) - 0.6 * ("q" not in t) - 1.5 * ("r" not in t), 0.0] for t in texts]

    def two_words_together(texts: list[str]) -> list[list[float]]:
        gone = [[word not in t for word in "dab"] for t in texts]
        return [[2 - 0.5 * d - 0.4 * a - 0.4 * b - 3.0 * (a and b), 0.0] for d, a, b in gone]

    found = minimal_erasure_set(pellucid.load(one_word_decides), "p q r")
    np.testing.assert_allclose(found.scores, [0, 0, 1.5])
    found = minimal_erasure_set(pellucid.load(two_words_together), "d a b")
    np.testing.assert_allclose(found.scores, [0, 0.4, 3.4])


def test_a_decision_that_never_changes_is_said() -> None:
    def sure(texts: list[str]) -> list[list[float]]:
        return [[3.0, 1.0] for _ in texts]

    found = minimal_erasure_set(pellucid.load(sure), "one two three")
    assert not found.evidence[0].ok
    assert "No removed units" in found.evidence[0].summary


def test_what_does_not_fit_is_refused() -> None:
    subject = pellucid.load(plain.tiny())
    with pytest.raises(InputError, match="13 units"):
        minimal_erasure_set(subject, list(range(5, 18)), exact=True)
    with pytest.raises(TargetError, match="2 tokens where one"):
        minimal_erasure_set(subject, plain.IDS, target=[3, 4])
    with pytest.raises(TargetError, match="1 outputs"):
        minimal_erasure_set(pellucid.load(lambda texts: [1.0 for _ in texts]), "one two")
