"""The paired test and Holm's correction, by hand and by enumeration."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy import stats

from pellucid.evaluate.over_data.compare import holm, sign_flip_test


def test_sign_flips_by_hand() -> None:
    """Of the 8 signs of 1, 2, 3 two are as far from 0 as 6; of those of -1, 2, 3 four are as far as 4."""
    differences = np.array([[1.0, -1.0, 0.0], [2.0, 2.0, 0.0], [3.0, 3.0, 0.0]])
    assert sign_flip_test(differences) == pytest.approx([2 / 8, 4 / 8, 1.0])


def test_sign_flips_by_enumeration() -> None:
    rng = np.random.default_rng(0)
    differences = rng.normal(0.4, 1, size=(9, 5))
    expected = []
    for column in differences.T:
        sums = [abs(sum(s * d for s, d in zip(signs, column, strict=True)))
                for signs in itertools.product((-1, 1), repeat=9)]  # fmt: skip
        expected.append(np.mean([one >= abs(column.sum()) - 1e-9 for one in sums]))
    assert sign_flip_test(differences) == pytest.approx(expected)


def test_drawn_signs_agree_with_scipy() -> None:
    differences = np.random.default_rng(1).normal(0.25, 1, size=(60, 1))
    other = stats.permutation_test(
        (differences[:, 0],), np.mean, permutation_type="samples", n_resamples=20_000, rng=np.random.default_rng(2)
    )
    assert sign_flip_test(differences, draws=20_000)[0] == pytest.approx(other.pvalue, abs=0.01)


def test_equal_methods_are_found_different_in_one_of_twenty() -> None:
    differences = np.random.default_rng(3).normal(size=(40, 2000))
    found = sign_flip_test(differences, draws=4000)
    assert (found <= 0.05).mean() == pytest.approx(0.05, abs=0.015)


def test_missing_examples_count_for_nothing() -> None:
    known = np.array([[1.0], [2.0], [3.0]])
    with_gap = np.concatenate([known, [[np.nan]]])
    assert sign_flip_test(with_gap) == pytest.approx(sign_flip_test(known))


def test_holm_by_hand() -> None:
    """0.01 x 4, 0.02 x 3, 0.03 x 2 = 0.06, 0.04 x 1 = 0.04 but never below the one before."""
    assert holm(np.array([0.03, 0.01, 0.04, 0.02])) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm(np.array([0.6, np.nan, 0.7])) == pytest.approx([1.0, np.nan, 1.0], nan_ok=True)
    assert holm(np.array([0.01])) == pytest.approx([0.01])


def test_holm_finds_something_false_in_one_run_of_twenty() -> None:
    rng = np.random.default_rng(4)
    false = [bool((holm(rng.uniform(size=30)) <= 0.05).any()) for _ in range(4000)]
    assert np.mean(false) == pytest.approx(0.05, abs=0.012)
