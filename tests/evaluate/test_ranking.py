"""The measures of a ranking, against brute force and public implementations."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy.stats import spearmanr
from sklearn.metrics import average_precision_score, roc_auc_score

from pellucid.evaluate._ranking import (
    area_under_roc,
    average_precision,
    chance_precision,
    interval,
    rank_correlation,
    settled,
)


@pytest.mark.parametrize("seed", range(5))
def test_agrees_with_public_implementations_ties_included(seed: int) -> None:
    rng = np.random.default_rng(seed)
    truth, scores = rng.integers(0, 4, 12).astype(float), rng.integers(0, 5, 12).astype(float)
    relevant = truth > 1
    assert rank_correlation(truth, scores) == pytest.approx(spearmanr(truth, scores)[0])
    assert average_precision(relevant, scores) == pytest.approx(average_precision_score(relevant, scores))
    assert area_under_roc(relevant, scores) == pytest.approx(roc_auc_score(relevant, scores))


def test_rounding_does_not_order_equal_places() -> None:
    truth = np.array([0.0, 0.0, 1.0, 1.0])
    assert rank_correlation(truth, np.array([1e-7, 0, 1, 1 - 1e-7])) == pytest.approx(1)
    np.testing.assert_allclose(settled(np.array([5.0, 0.0, 1e-6, 5.0001])), [5.00005, 5e-7, 5e-7, 5.00005], rtol=1e-6)
    assert len(set(settled(np.array([1.0, 1.1, 1.2])))) == 3


def test_a_coarser_resolution_makes_small_differences_equal() -> None:
    truth, noisy = np.array([2.0, 0.0, 0.0, 0.0, -1.0]), np.array([2.0, 0.03, -0.02, 0.01, -1.1])
    assert rank_correlation(truth, noisy, 0.05) == pytest.approx(1)
    assert rank_correlation(truth, noisy) < 0.99


def test_chance_is_the_mean_over_all_orders() -> None:
    relevant = np.array([True, True, False, False, False])
    orders = [average_precision(relevant, np.array(order)) for order in itertools.permutations(range(5))]
    assert chance_precision(relevant) == pytest.approx(np.mean(orders))


def test_what_cannot_be_ranked_is_nan_and_constant_scores_are_chance() -> None:
    ones = np.ones(3)
    assert np.isnan(rank_correlation(ones, np.arange(3)))
    assert rank_correlation(np.arange(3), ones) == 0
    assert np.isnan(average_precision(ones > 0, ones))
    assert np.isnan(area_under_roc(ones > 0, ones))
    assert area_under_roc(np.array([True, False, False]), ones) == 0.5


def test_the_interval_covers_the_mean_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(200):
        mean, low, high = interval(rng.normal(2, 1, 40), rng, draws=300)
        assert low <= mean <= high
        hits += low <= 2 <= high
    assert 0.88 <= hits / 200 <= 0.99
    assert interval(np.array([np.nan, 3.0]), rng) == (3, 3, 3)
