"""Bounds of a share: where the divergence reaches the level, and never crossed too often."""

import math

import numpy as np
import pytest

from pellucid.engine.precision import divergence, lower_bound, upper_bound


def test_the_bounds_are_where_the_divergence_reaches_the_level() -> None:
    for share, cases in ((0.3, 40), (0.9, 200), (0.0, 12)):
        high = upper_bound(share, cases, 3.0)
        assert cases * divergence(share, high) == pytest.approx(3.0, abs=1e-6)
        assert lower_bound(1 - share, cases, 3.0) == pytest.approx(1 - high)
    assert upper_bound(0.0, 10, math.log(20)) == pytest.approx(1 - 20 ** (-1 / 10), abs=1e-9)
    assert (lower_bound(0.5, 0, 1.0), upper_bound(0.5, 0, 1.0)) == (0.0, 1.0)


def test_they_hold_as_often_as_they_say() -> None:
    kept = np.random.default_rng(0).binomial(50, 0.8, size=2000) / 50
    missed = np.mean([lower_bound(share, 50, math.log(20)) > 0.8 for share in kept])
    assert 0.002 < missed <= 0.05
