"""The deletion and insertion check: by hand where everything is known, and honest about chance."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from scipy import stats

import pellucid
from pellucid.core.results import Explanation
from pellucid.engine import store
from pellucid.engine.deletion import Plan, deletion_check, plan
from pellucid.engine.question import Question, ask
from tests import plain
from tests.tiny import TINY

WEIGHTS = {"a": 4.0, "b": 2.0, "c": 1.0, "d": -1.0}


def additive(texts: list[str]) -> list[float]:
    return [sum(WEIGHTS.get(word, 0.0) for word in text.split()) for text in texts]


def question() -> Question:
    return ask(pellucid.load(additive), "a b c d")


def area(curve: list[float]) -> float:
    """Trapezoids by hand over 5 equally spaced points."""
    return sum((left + right) / 2 * 0.25 for left, right in pairwise(curve))


def test_areas_of_an_additive_function_by_hand() -> None:
    rankings = {"true": np.array([4.0, 2.0, 1.0, -1.0]), "opposite": np.array([-4.0, -2.0, -1.0, 1.0])}
    found = deletion_check(question(), rankings, "delete", Plan(5, 10, True), seed=0)
    deletion, insertion = found["true"]
    assert (deletion.name, insertion.name) == ("deletion", "insertion")
    assert deletion.curves["x"] == (0.0, 0.25, 0.5, 0.75, 1.0)
    assert deletion.curves["method"] == (6.0, 2.0, 0.0, -1.0, 0.0)
    assert insertion.curves["method"] == (0.0, 4.0, 6.0, 7.0, 6.0)
    assert deletion.values["area"] == pytest.approx(area([6, 2, 0, -1, 0])) == pytest.approx(1.0)
    assert insertion.values["area"] == pytest.approx(area([0, 4, 6, 7, 6])) == pytest.approx(5.0)
    worst, least = found["opposite"]
    assert worst.curves["method"] == (6.0, 7.0, 6.0, 4.0, 0.0)
    assert worst.values["area"] == pytest.approx(5.0)
    assert least.values["area"] == pytest.approx(1.0)
    assert (worst.ok, least.ok) == (False, False)  # no better than most random orders
    assert deletion.ok in (True, None)  # better than most; of four units, it may still be within their spread
    assert worst.values["beaten"] == 0.0
    assert deletion.values["beaten"] > 0.8


def test_random_orders_and_their_interval_by_hand() -> None:
    """The same orders drawn here give the mean and the t prediction interval."""
    rng = np.random.default_rng(7)
    weights = np.array(list(WEIGHTS.values()))
    orders = [rng.permutation(4) for _ in range(10)]
    areas = [area([6.0 - weights[order[:k]].sum() for k in range(5)]) for order in orders]
    mean, spread = np.mean(areas), np.std(areas, ddof=1)
    reach = stats.t.ppf(0.975, 9) * spread * np.sqrt(1.1)
    found = deletion_check(question(), {"true": weights}, "delete", Plan(5, 10, False), seed=7)["true"][0].values
    assert found["random_mean"] == pytest.approx(mean)
    assert found["random_low"] == pytest.approx(mean - reach)
    assert found["random_high"] == pytest.approx(mean + reach)
    assert found["beaten"] == np.mean(np.array(areas) > 1.0)
    again = deletion_check(question(), {"true": weights}, "delete", Plan(5, 10, False), seed=8)["true"][0].values
    assert again["random_mean"] != found["random_mean"]


def test_a_random_ranking_is_seldom_called_better() -> None:
    """The interval covers 95 %: a ranking without meaning passes for good in about 2.5 % of runs, on one side."""
    rng = np.random.default_rng(0)
    weights = {f"w{i}": float(rng.normal()) for i in range(12)}
    subject = pellucid.load(lambda texts: [sum(weights.get(word, 0.0) for word in text.split()) for text in texts])
    asked = ask(subject, " ".join(weights))
    passed = [
        deletion_check(asked, {"noise": rng.normal(size=12)}, "delete", Plan(8, 10, False), seed)["noise"][0].ok is True
        for seed in range(200)
    ]
    assert 0 < np.mean(passed) < 0.075


def test_the_true_ranking_passes() -> None:
    """Of n units, the order of an additive function is about sqrt(n - 1) standard deviations from random ones."""
    rng = np.random.default_rng(1)
    weights = {f"w{i}": float(rng.normal()) for i in range(30)}
    subject = pellucid.load(lambda texts: [sum(weights.get(word, 0.0) for word in text.split()) for text in texts])
    found = deletion_check(
        ask(subject, " ".join(weights)), {"true": np.array(list(weights.values()))}, "delete", Plan(20, 10, True)
    )
    assert [evidence.ok for evidence in found["true"]] == [True, True]


@pytest.mark.parametrize("units", [3, 5, 30])
@pytest.mark.parametrize("rankings", [1, 2])
def test_a_plan_is_the_largest_that_fits(units: int, rankings: int) -> None:
    for rows in (0, 20, 60, 150, 400, 2000):
        found = plan(units, rankings, rows)
        if found is None:
            assert Plan(4, 4, False).rows(rankings) > rows
            continue
        assert found.rows(rankings) <= rows
        assert 4 <= found.points <= min(units + 1, 20)
        assert 4 <= found.orders <= 10
    assert plan(2, rankings, 10_000) is None


@pytest.mark.parametrize("insertion", [True, False])
def test_a_plan_counts_no_fewer_rows_than_are_run(insertion: bool) -> None:
    subject = pellucid.load(TINY["llama"]())
    asked = ask(subject, plain.IDS * 2, target=plain.TARGET)
    size = Plan(9, 6, insertion)
    with subject.recorded() as record:
        deletion_check(asked, {"one": np.arange(12.0), "two": -np.arange(12.0)}, "delete", size)
    assert record.forwards <= size.rows(2)


def test_the_check_costs_at_most_half_of_the_methods() -> None:
    subject = pellucid.load(TINY["llama"]())
    for methods in ("integrated_gradients", "shapley_values,occlusion", "gradient_x_input"):
        # Without kept scores, because those make methods cheaper than the price that the check is measured against.
        with subject.recorded() as record, store.unused():
            found = pellucid.explain(subject, plain.IDS, target=plain.TARGET, methods=methods)
        assert isinstance(found, Explanation)
        own = sum(r.provenance.forwards + 2 * r.provenance.backwards for r in found.results)
        # Apart from methods and check, the prompt is read once for the probabilities.
        spent = record.forwards + 2 * record.backwards - own - 1
        assert spent <= own / 2
        checked = [e.name for r in found.results for e in r.evidence if e.name in ("deletion", "insertion")]
        assert bool(checked) == (spent > 0)
        assert checked or any("skipped" in note for note in found.notes)
