"""Sampled indices: unbiased, honest about their error, exact where nothing is left to sample."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import stats

from pellucid.core.errors import InputError
from pellucid.engine.adjusted import estimate
from pellucid.engine.coalitions import all_coalitions, exact_shapley, sampled_shapley
from pellucid.engine.designs import design
from pellucid.engine.games import dividends, interactions, sets_up_to
from pellucid.engine.linear_indices import index_of
from pellucid.engine.regression import shapley_regression, weighted_linear
from tests import games

N = 7
TABLE = games.rough(N)
VALUE = games.lookup(TABLE)
MASKS = all_coalitions(N)


@pytest.mark.parametrize(
    ("kind", "sizes", "order", "size", "samples"),
    [
        ("SII", "kernel", 1, 1, 64),
        ("SII", "uniform", 1, 1, 64),
        ("BII", "binomial", 1, 1, 64),
        ("SII", "kernel", 2, 2, 100),
        ("STII", "kernel", 2, 2, 100),
    ],
)
def test_unbiased_and_covered(kind: Any, sizes: Any, order: int, size: int, samples: int) -> None:
    wanted = sets_up_to(N, size, size)
    truth = interactions(MASKS, dividends(TABLE), wanted, kind, size)
    runs = [
        estimate(
            N, VALUE, index_of(kind, wanted), samples=samples, sizes=sizes, order=order, rng=np.random.default_rng(seed)
        )
        for seed in range(200)
    ]
    means, errors = np.stack([r.values for r in runs]), np.array([r.error for r in runs])
    bias = np.abs(means.mean(0) - truth) / (means.std(0, ddof=1) / 200**0.5)
    assert bias.max() < 3.5, "the largest of up to 42 entries"
    assert (bias < 3).mean() >= 0.95
    reach = stats.t.ppf(0.975, runs[0].draws / 2 - 1) * errors
    assert 0.90 <= (np.abs(means - truth) <= reach).mean() <= 0.99
    if (kind, size) == ("SII", 1):
        np.testing.assert_allclose(means.sum(1), np.broadcast_to(TABLE[-1] - TABLE[0], (200, 2)), atol=1e-9)


def test_the_regression_sharpens_more_than_orders_do() -> None:
    """At equal numbers of coalitions, the error is below that of antithetic permutations."""
    truth = exact_shapley(TABLE, N)
    ours = [
        estimate(
            N,
            VALUE,
            index_of("SII", np.eye(N, dtype=bool)),
            samples=64,
            sizes="kernel",
            rng=np.random.default_rng(seed),
        ).values
        for seed in range(40)
    ]
    orders = [
        sampled_shapley(N, VALUE, permutations_at_most=10, precision=None, rng=np.random.default_rng(seed))[0]
        for seed in range(40)
    ]
    assert np.square(ours - truth).mean() < 0.7 * np.square(orders - truth).mean()


def test_a_sum_over_units_is_found_at_once() -> None:
    slope = np.arange(20.0) - 7

    def value(masks: np.ndarray) -> np.ndarray:
        return (masks @ slope)[:, None] + 3.0

    cases: tuple[tuple[Any, Any], ...] = (("SII", "kernel"), ("SII", "uniform"), ("BII", "binomial"))
    for kind, sizes in cases:
        found = estimate(
            20, value, index_of(kind, np.eye(20, dtype=bool)), samples=120, sizes=sizes, rng=np.random.default_rng(0)
        )
        np.testing.assert_allclose(found.values[:, 0], slope, atol=1e-4)
        assert found.error is not None
        assert found.error.max() < 1e-4


def test_it_stops_when_precise_enough() -> None:
    def value(masks: np.ndarray) -> np.ndarray:
        return masks.sum(1, keepdims=True).astype(float) ** 1.05

    loose = estimate(
        30,
        value,
        index_of("SII", np.eye(30, dtype=bool)),
        samples=4000,
        sizes="kernel",
        rng=np.random.default_rng(0),
        precision=0.05,
    )
    full = estimate(
        30, value, index_of("SII", np.eye(30, dtype=bool)), samples=4000, sizes="kernel", rng=np.random.default_rng(0)
    )
    assert loose.draws < full.draws / 4
    assert loose.error is not None
    assert loose.error.max() <= 0.05 * loose.difference[0]


def test_the_regression_of_the_paper_is_exact_when_enumerated_and_consistent_when_sampled() -> None:
    truth = exact_shapley(TABLE, N)
    everything = design(N, 2**N, "kernel", np.random.default_rng(0))
    np.testing.assert_allclose(
        shapley_regression(everything, VALUE(everything.full), np.zeros((0, 2, 2)))[0], truth, atol=1e-10
    )
    found, errors = [], []
    for seed in range(100):
        plan = design(N, 80, "kernel", np.random.default_rng(seed))
        seen = VALUE(plan.pairs.reshape(-1, N)).reshape(-1, 2, 2)
        values, error = shapley_regression(plan, VALUE(plan.full), seen)
        np.testing.assert_allclose(values.sum(0), TABLE[-1] - TABLE[0], atol=1e-10)
        found.append(values)
        errors.append(error)
    assert np.abs(np.mean(found, 0) - truth).max() < 0.02
    assert 0.90 <= (np.abs(found - truth) <= 2.05 * np.array(errors)).mean() <= 0.99


def test_a_design_stands_for_all_coalitions() -> None:
    """Weighting full sizes by one and draws by one over their chance counts every coalition once, on average."""
    totals = []
    for seed in range(400):
        plan = design(8, 60, "uniform", np.random.default_rng(seed))
        flat = plan.pairs.reshape(-1, 8)
        assert len(plan.full) + len(flat) <= 60
        assert (plan.pairs[:, 0] == ~plan.pairs[:, 1]).all()
        totals.append(len(plan.full) + np.exp(-plan.log_chance[flat.sum(1)]).mean())
    error = np.std(totals, ddof=1) / 20
    assert abs(np.mean(totals) - 2**8) < 3 * error + 1e-9


def test_too_few_samples_are_refused() -> None:
    with pytest.raises(InputError, match="9 samples"):
        design(8, 9, "kernel", np.random.default_rng(0))


def test_error_bars_of_a_weighted_regression_cover() -> None:
    weights = np.exp(-((N - MASKS.sum(1)) ** 2) / 8.0)
    truth = weighted_linear(MASKS, TABLE, weights)[0]
    hits = []
    for seed in range(200):
        rows = np.random.default_rng(seed).integers(0, 2**N, size=80)
        slope, _, error, _ = weighted_linear(MASKS[rows], TABLE[rows], weights[rows])
        hits.append(np.abs(slope - truth) <= 1.99 * error)
    assert 0.90 <= np.mean(hits) <= 0.99
