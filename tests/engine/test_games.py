"""Indices of games against their definitions, and against games whose answer has a closed form."""

from __future__ import annotations

from itertools import combinations
from math import comb, factorial
from typing import Any

import numpy as np
import pytest

from pellucid.engine.coalitions import all_coalitions, exact_shapley
from pellucid.engine.games import dividends, fourier, interactions, sets_up_to, share
from pellucid.engine.linear_indices import coefficients, index_of_pairs
from tests import games

N = 6
TABLE = games.rough(N)
MASKS = all_coalitions(N)


def weight(index: Any, size: int) -> Any:
    """Return the weight of a derivative by the size of the coalition it is taken at, from the papers."""
    return {
        "SII": lambda t: factorial(t) * factorial(N - t - size) / factorial(N - size + 1),
        "BII": lambda _: 0.5 ** (N - size),
        "STII": lambda t: size / N / comb(N - 1, t),
    }[index]


@pytest.mark.parametrize("index", ["SII", "BII", "STII"])
@pytest.mark.parametrize("size", [1, 2, 3])
def test_an_index_is_a_mean_of_derivatives(index: Any, size: int) -> None:
    wanted = sets_up_to(N, size, size)
    members = list(combinations(range(N), size))
    expected = np.array([games.mean_derivative(TABLE, m, weight(index, size)) for m in members])
    np.testing.assert_allclose(interactions(MASKS, dividends(TABLE), wanted, index, size), expected, atol=1e-12)
    found = coefficients(index, MASKS, wanted, np.zeros(len(MASKS))).T @ TABLE
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_dividends_rebuild_the_game() -> None:
    rebuilt = (MASKS.astype(int) @ MASKS.T.astype(int) == MASKS.sum(1)).astype(float) @ dividends(TABLE)
    np.testing.assert_allclose(rebuilt, TABLE, atol=1e-12)


def test_fourier_coefficients_rebuild_the_game() -> None:
    signs = (-1.0) ** (MASKS.astype(int) @ MASKS.T.astype(int))
    np.testing.assert_allclose(signs @ fourier(TABLE), TABLE, atol=1e-12)


def test_faithful_interactions_solve_their_regression() -> None:
    """FSII minimises the squared error weighted by the Shapley kernel, exact at both ends."""
    wanted = sets_up_to(N, 2)
    rows = (MASKS.astype(int) @ wanted.T.astype(int) == wanted.sum(1)).astype(float)
    sizes = MASKS.sum(1)
    kernel = np.array([1e9 if t in (0, N) else (N - 1) / (comb(N, t) * t * (N - t)) for t in sizes]) ** 0.5
    solved = np.linalg.lstsq(kernel[:, None] * rows, kernel[:, None] * (TABLE - TABLE[0]), rcond=None)[0]
    np.testing.assert_allclose(interactions(MASKS, dividends(TABLE), wanted, "FSII", 2), solved, atol=1e-6)


@pytest.mark.parametrize("index", ["k-SII", "STII", "FSII"])
@pytest.mark.parametrize("order", [1, 2, 3])
def test_they_share_out_the_whole_and_begin_with_shapley(index: Any, order: int) -> None:
    found = interactions(MASKS, dividends(TABLE), sets_up_to(N, order), index, order)
    np.testing.assert_allclose(found.sum(0), TABLE[-1] - TABLE[0], atol=1e-12)
    if order == 1:
        np.testing.assert_allclose(found, exact_shapley(TABLE, N), atol=1e-12)


@pytest.mark.parametrize("index", ["k-SII", "STII", "FSII"])
def test_pairs_as_sums_over_coalitions_equal_those_over_dividends(index: Any) -> None:
    found = index_of_pairs(index, N).counts(MASKS, np.zeros(len(MASKS))).T @ TABLE
    expected = interactions(MASKS, dividends(TABLE), sets_up_to(N, 2), index, 2)
    np.testing.assert_allclose(found, expected, atol=1e-9)


def test_unanimity_games_have_their_closed_form() -> None:
    """v(S) = 1 if S holds T: a part S of T gets 1/(|T|-|S|+1) by SII, 2^-(|T|-|S|) by BII, 1/C(|T|,2) by STII."""
    team = [0, 2, 3, 5]
    amounts = dividends(games.unanimity(N, team))
    singles, pairs = np.eye(N, dtype=bool), sets_up_to(N, 2, 2)
    inside = pairs[:, team].sum(1) == 2
    cases: tuple[tuple[Any, Any, float], ...] = (
        ("SII", 1 / 4, 1 / 3),
        ("BII", 1 / 8, 1 / 4),
        ("STII", None, 1 / 6),
    )
    for index, single, pair in cases:
        found = interactions(MASKS, amounts, pairs, index, 2)[:, 0]
        np.testing.assert_allclose(found, np.where(inside, pair, 0), atol=1e-12)
        if single is not None:
            found = interactions(MASKS, amounts, singles, index, 2)[:, 0]
            np.testing.assert_allclose(found, np.where(np.isin(np.arange(N), team), single, 0), atol=1e-12)
    # 2-SII: phi_i = 1/|T| and pairs 1/(|T|-1), so a single keeps 1/4 - 1/2 * 3 * 1/3
    assert share("k-SII", 2, 1, 4) == pytest.approx(1 / 4 - 1 / 2)
    assert share("k-SII", 2, 2, 4) == pytest.approx(1 / 3)
