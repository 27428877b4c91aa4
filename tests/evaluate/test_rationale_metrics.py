"""Metrics against human rationales, by hand on a text of six words, and their chance levels over random scores."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations, pairwise, permutations

import numpy as np
import pytest

import pellucid
from pellucid.core.errors import InputError
from pellucid.core.results import Evidence, Scores
from pellucid.evaluate.auprc import auprc
from pellucid.evaluate.iou_f1 import iou_f1
from pellucid.evaluate.planted_tokens import planted_tokens
from pellucid.evaluate.ranking_map import ranking_map
from pellucid.evaluate.subgroup_bias import subgroup_bias
from pellucid.evaluate.token_f1 import token_f1

TEXT = "the film was really good fun"
SHOWN = pellucid.run("occlusion", pellucid.load(lambda texts: [float(len(t)) for t in texts]), TEXT, unit="word")
MARKED = [0, 0, 0, 1, 1, 1]


def scored(*values: float) -> Scores:
    return Scores(values=np.array(values), tokens=SHOWN.tokens, units=SHOWN.units, labels=SHOWN.labels)


FOUND = scored(0.1, 0.9, 0.0, 0.2, 0.8, 0.7)  # the highest three are film, good, fun


def test_token_f1() -> None:
    assert token_f1(FOUND, MARKED).values == pytest.approx(
        {"value": 2 / 3, "precision": 2 / 3, "recall": 2 / 3, "chance": 1 / 2}
    )
    two = token_f1(FOUND, MARKED, top=2).values
    assert (two["precision"], two["recall"], two["value"]) == pytest.approx((1 / 2, 1 / 3, 2 / 5))


def test_iou_f1() -> None:
    """The runs are film | good fun; the second has 2 / 3 of really good fun, so one of two is found."""
    found = iou_f1(FOUND, MARKED).values
    assert (found["precision"], found["recall"], found["value"]) == pytest.approx((1 / 2, 1, 2 / 3))
    assert iou_f1(scored(0, 0, 0, 1, 1, 1), MARKED).values["value"] == 1
    assert iou_f1(FOUND, MARKED, top=1).values["value"] == 0
    assert iou_f1(scored(0, 0, 2, 3, 0, 0), MARKED, top=2).values["value"] == 0, "one of four units is shared"


def test_auprc() -> None:
    """Marked units stand at the ranks 2, 3 and 4: precision 1/2, 2/3 and 3/4, each for a third of the recall."""
    found = auprc(FOUND, MARKED).values
    assert found["value"] == pytest.approx((1 / 2 + 2 / 3 + 3 / 4) / 3)
    corners = [(1 / 3, 1 / 2), (2 / 3, 2 / 3), (1, 3 / 4)]
    area = (0 + 1 / 2) / 2 / 3 + sum((a + b) / 2 / 3 for (_, a), (_, b) in pairwise(corners))
    assert found["trapezoid"] == pytest.approx(area), "as ERASER and ferret join the points"
    assert auprc(scored(0, 0, 0, 1, 2, 3), MARKED).values["value"] == 1
    assert np.isnan(auprc(FOUND, [1] * 6).values["value"])


def test_planted_tokens() -> None:
    found = planted_tokens(FOUND, ["good"]).values
    assert found == pytest.approx({"value": 0, "recall": 0, "mean_rank": 2, "chance": 1 / 6})
    assert planted_tokens(FOUND, ["good"], top=2).values["value"] == 1 / 2
    assert planted_tokens(scored(0, 0, 0, 0, -3, 1), ["good"], absolute=True).values["value"] == 1


def test_ranking_map() -> None:
    """film good fun ... against good film fun ...: 0/1, 2/2, 3/3 of the first one, two and three."""
    other = scored(0.1, 0.7, 0.0, 0.2, 0.9, 0.5)
    assert ranking_map(FOUND, other, top=3).values["value"] == pytest.approx((0 + 1 + 1) / 3)
    assert ranking_map(FOUND, FOUND).values["value"] == 1
    assert ranking_map(FOUND, other, top=3).values["chance"] == pytest.approx((1 + 2 + 3) / 6 / 3)
    changed = Scores(values=np.array([3.0, 2.0, 1.0]), labels={"unit": ("good", "movie", "the")})
    assert ranking_map(FOUND, changed).values["value"] == pytest.approx((0 + 1 / 2 + 1 / 3) / 3)
    assert ranking_map(FOUND, changed).values["chance"] == pytest.approx(np.mean([i * 2 / 18 for i in (1, 2, 3)]))
    twice = Scores(values=np.array([3.0, 2.0, 1.0]), labels={"unit": ("a", "b", "a")})
    exact = np.mean([_overlap(p, q) for p in permutations("aba") for q in permutations("aba")])
    assert ranking_map(twice, twice).values["chance"] == pytest.approx(exact, abs=0.03)


def _overlap(first: tuple[str, ...], second: tuple[str, ...]) -> float:
    counts = [sum(min(first[:i].count(t), second[:i].count(t)) for t in "ab") / i for i in (1, 2, 3)]
    return float(np.mean(counts))


def test_subgroup_bias() -> None:
    """Every area is counted by pairs; both groups are joined by their mean of power -5."""
    predictions, labels = [0.9, 0.4, 0.6, 0.2, 0.8, 0.1, 0.7], [1, 1, 0, 0, 1, 0, 0]
    groups = [["w"], ["w"], ["w"], ["w", "m"], ["m"], [], []]

    def area(toxic: list[int], harmless: list[int]) -> float:
        return float(np.mean([predictions[i] > predictions[j] for i in toxic for j in harmless]))

    mean = lambda *areas: float(np.mean(np.array(areas) ** -5.0) ** (-1 / 5))  # noqa: E731
    found = subgroup_bias(predictions, labels, groups).values
    assert found["subgroup"] == pytest.approx(mean(area([0, 1], [2, 3]), area([4], [3])))
    assert found["bpsn"] == pytest.approx(mean(area([4], [2, 3]), area([0, 1], [3])))
    assert found["bnsp"] == pytest.approx(mean(area([0, 1], [5, 6]), area([4], [2, 5, 6])))
    assert found["value"] == min(found["subgroup"], found["bpsn"], found["bnsp"])
    rng = np.random.default_rng(0)
    random = subgroup_bias(
        rng.random(4000).tolist(), rng.integers(2, size=4000).tolist(), [["w"]] * 2000 + [[]] * 2000
    ).values
    assert all(abs(value - 0.5) < 0.05 for value in random.values())
    with pytest.raises(InputError, match="both toxic and harmless"):
        subgroup_bias([0.5], [1], [["w"]])
    with pytest.raises(InputError, match="one of each"):
        subgroup_bias([0.5], [1, 0], [["w"]])


def test_ways_to_give_a_rationale() -> None:
    start = TEXT.index("really")
    same = [MARKED, [(start, len(TEXT))], ["really", "good fun"], np.array(MARKED, dtype=bool), [[start, len(TEXT)]]]
    assert len({token_f1(FOUND, given).values["value"] for given in same}) == 1
    assert len({iou_f1(FOUND, given).values["value"] for given in same}) == 1


@pytest.mark.parametrize(
    ("rationale", "words"),
    [
        ([0, 1], "2 entries for 6 units"),
        ([0] * 6, "marks no unit"),
        (["bad"], "'bad'"),
        (["goo"], "'goo'"),
        ([(0, 99)], "28 characters"),
    ],
)
def test_rationales_that_do_not_fit_are_refused(rationale: list[object], words: str) -> None:
    with pytest.raises(InputError, match=words):
        token_f1(FOUND, rationale)


def test_other_refusals() -> None:
    with pytest.raises(InputError, match="one yes or no"):
        token_f1(Scores(values=np.ones(2)), ["good"])
    with pytest.raises(InputError, match="one finite score per unit"):
        token_f1(Scores(values=np.ones((2, 2)), axes=("unit", "target")), [1, 0])
    with pytest.raises(InputError, match="one text per unit"):
        ranking_map(FOUND, Scores(values=np.ones(2)))


@pytest.mark.parametrize("metric", [token_f1, iou_f1, auprc, planted_tokens])
def test_random_scores_are_at_chance(metric: Callable[..., Evidence]) -> None:
    rng = np.random.default_rng(0)
    found = []
    for seed in range(200):
        more = {"auprc": {}, "iou_f1": {"top": 2, "draws": 10, "seed": seed}}.get(metric.__name__, {"top": 2})
        found.append(metric(scored(*rng.permutation(6).astype(float)), [1, 0, 0, 1, 1, 0], **more).values)
    gaps = [one["value"] - one["chance"] for one in found]
    assert abs(np.mean(gaps)) < 3.5 * np.std(gaps, ddof=1) / 200**0.5


def test_chance_is_the_mean_over_all_choices() -> None:
    marked, values = {0, 3, 4}, []
    for both in combinations(range(6), 2):
        hits = len(marked & set(both))
        values.append(2 * hits / 5)
    assert token_f1(FOUND, [1, 0, 0, 1, 1, 0], top=2).values["chance"] == pytest.approx(np.mean(values))
