"""Orders in strata: unbiased, honest, and better than orders without."""

from __future__ import annotations

import numpy as np

from pellucid.engine.coalitions import exact_shapley, permutations
from pellucid.engine.orders import estimate_over_orders, rotations
from tests import games

N = 6
TABLE = games.rough(N)
VALUE = games.lookup(TABLE)


def test_every_place_once() -> None:
    forms = next(rotations(N, N, np.random.default_rng(0)))
    assert (
        sorted(tuple(sorted(form.tolist().index(player) for form in forms)) for player in range(N))
        == [tuple(range(N))] * N
    )


def test_unbiased_covered_and_better_than_plain_orders() -> None:
    truth = exact_shapley(TABLE, N)
    runs = [
        estimate_over_orders(N, VALUE, rotations(N, 3, np.random.default_rng(seed)), orders_at_most=30)
        for seed in range(200)
    ]
    means, errors = np.stack([r.values for r in runs]), np.array([r.error for r in runs])
    assert (np.abs(means.mean(0) - truth) < 3.3 * means.std(0, ddof=1) / 200**0.5 + 1e-9).all()
    assert 0.90 <= (np.abs(means - truth) <= 2.26 * errors).mean() <= 0.99
    np.testing.assert_allclose(means.sum(1), np.broadcast_to(TABLE[-1] - TABLE[0], (200, 2)), atol=1e-9)

    plain = []
    for seed in range(200):
        single = permutations(N, np.random.default_rng(seed), antithetic=False)
        plain.append(estimate_over_orders(N, VALUE, ([order] for order in single), orders_at_most=30).values)
    assert np.square(means - truth).mean() < 0.9 * np.square(np.stack(plain) - truth).mean()


def test_it_stops_when_precise_enough_and_always_has_an_error() -> None:
    def additive(masks: np.ndarray) -> np.ndarray:
        return (masks @ np.arange(5.0))[:, None]

    stopped = estimate_over_orders(
        5, additive, rotations(5, 2, np.random.default_rng(0)), orders_at_most=400, precision=0.01
    )
    assert stopped.draws == 16
    few = estimate_over_orders(5, additive, rotations(5, 4, np.random.default_rng(0)), orders_at_most=1)
    assert few.draws == 8
    assert few.error is not None
    assert np.isfinite(few.error).all()
