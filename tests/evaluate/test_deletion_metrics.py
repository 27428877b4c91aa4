"""Deletion metrics by hand on four words, at chance for random scores, and free where a method has scored all."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import stats

import pellucid
from pellucid import Target
from pellucid.core.errors import InputError
from pellucid.core.results import Scores
from tests import plain

WEIGHTS = {"a": 4.0, "b": 2.0, "c": 1.0, "d": -1.0}
ALL = ("comprehensiveness", "sufficiency", "deletion_area", "insertion_area", "leave_one_out_correlation")
BY_ORDER = ALL[:4]
TEN = [11, 42, 7, 23, 64, 5, 9, 31, 77, 50]


def additive(texts: list[str]) -> list[float]:
    return [sum(WEIGHTS.get(word, 0.0) for word in text.split()) for text in texts]


SUBJECT = pellucid.load(additive)
TRUE = pellucid.run("occlusion", SUBJECT, "a b c d", unit="word")


def ranked(values: list[float]) -> Scores:
    return Scores(values=np.array(values), axes=("unit",), tokens=TRUE.tokens, units=TRUE.units)


def value(name: str, scores: Scores, **more: Any) -> float:
    return float(pellucid.run(name, SUBJECT, "a b c d", scores=scores, **more).values["value"])


def test_by_hand_on_four_words() -> None:
    """s = 6. The shares 1, 5, 10, 20 % of four words are one word, 50 % are two."""
    assert value("comprehensiveness", TRUE) == pytest.approx((4 * 4 + 6) / 5)
    assert value("sufficiency", TRUE) == pytest.approx((4 * 2 + 0) / 5)
    assert value("deletion_area", TRUE) == pytest.approx((6 / 2 + 2 + 0 - 1 + 0) / 4)
    assert value("insertion_area", TRUE) == pytest.approx((0 + 4 + 6 + 7 + 6 / 2) / 4)
    assert value("leave_one_out_correlation", TRUE) == pytest.approx(1.0)
    opposite = ranked([-4.0, -2.0, -1.0, 1.0])
    assert value("comprehensiveness", opposite) == pytest.approx((4 * -1 + 0) / 5)
    assert value("sufficiency", opposite) == pytest.approx((4 * 7 + 6) / 5)
    assert value("deletion_area", opposite) == pytest.approx((6 / 2 + 7 + 6 + 4 + 0) / 4)
    assert value("insertion_area", opposite) == pytest.approx((0 - 1 + 0 + 2 + 6 / 2) / 4)
    assert value("leave_one_out_correlation", opposite) == pytest.approx(-1.0)
    other = ranked([1.0, 5.0, 2.0, 0.0])
    assert value("leave_one_out_correlation", other) == pytest.approx(stats.pearsonr([1, 5, 2, 0], [4, 2, 1, -1])[0])


@pytest.mark.parametrize("name", BY_ORDER)
def test_the_true_order_is_better_than_chance_and_its_opposite_is_not(name: str) -> None:
    rng = np.random.default_rng(0)
    weights = {f"w{i}": float(rng.normal()) for i in range(12)}
    subject = pellucid.load(lambda texts: [sum(weights.get(word, 0.0) for word in text.split()) for text in texts])
    prompt = " ".join(weights)
    true = pellucid.run("occlusion", subject, prompt, unit="word")
    found = pellucid.run(name, subject, prompt, scores=true, orders=200)
    assert (found.ok, found.values["beaten"]) == (True, 1.0)
    turned = Scores(values=-true.values, axes=("unit",), tokens=true.tokens, units=true.units)
    assert pellucid.run(name, subject, prompt, scores=turned).ok is False
    assert "beaten" not in pellucid.run(name, subject, prompt, scores=true, orders=0).values


@pytest.mark.slow
def test_random_scores_are_at_chance() -> None:
    rng, found = np.random.default_rng(1), dict[str, list[float]]()
    for seed in range(100):
        scores = ranked(rng.normal(size=4).tolist())
        for name in BY_ORDER:
            run = pellucid.run(name, SUBJECT, "a b c d", scores=scores, orders=5, seed=seed).values
            found.setdefault(name, []).append(run["value"] - run["random_mean"])
        found.setdefault(ALL[4], []).append(value(ALL[4], scores))
    for name, gaps in found.items():
        assert abs(np.mean(gaps)) < 3 * np.std(gaps, ddof=1) / 100**0.5, name


@pytest.mark.usefixtures("kept_scores")
def test_nothing_is_run_again_for_them() -> None:
    """With ten units enumerated, five metrics with twenty random orders each add no forward."""
    subject = pellucid.load(plain.tiny())
    asked: dict[str, Any] = {"target": plain.TARGET, "replacement": 3}
    with subject.recorded() as record:
        exact = pellucid.run("shapley_values", subject, TEN, exact=True, **asked)
        for name in ALL:
            found = pellucid.run(name, subject, TEN, scores=exact, **asked)
            assert np.isfinite(found.values["value"])
    assert record.forwards == 1024


def test_several_prompts_have_their_own_scores() -> None:
    prompts = ["a b", "c d"]
    results = pellucid.run("occlusion", SUBJECT, prompts, unit="word")
    found = pellucid.run("sufficiency", SUBJECT, prompts, scores=results, orders=0)
    assert [one.values["value"] for one in found] == pytest.approx([(4 * 2 + 2) / 5, (4 * -1 - 1) / 5])


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(InputError, match="another prompt"):
        pellucid.run("sufficiency", SUBJECT, "d c b a", scores=TRUE)
    subject = pellucid.load(plain.tiny())
    each = Target.continuation([17, 20], each=True)
    matrix = pellucid.run("occlusion", subject, plain.IDS, target=each, replacement=3)
    with pytest.raises(InputError, match="one finite score per unit"):
        pellucid.run("sufficiency", subject, plain.IDS, scores=matrix, target=each, replacement=3)
    one = pellucid.run("occlusion", subject, plain.IDS, target=17, replacement=3)
    with pytest.raises(InputError, match="without `each`"):
        pellucid.run("sufficiency", subject, plain.IDS, scores=one, target=each, replacement=3)
    assert np.isnan(value("leave_one_out_correlation", ranked([1.0] * 4)))
