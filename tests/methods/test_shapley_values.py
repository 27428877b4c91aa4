"""Shapley values: the definition over all orders, unanimity games, unbiased sampling, efficiency, stopping."""

from collections.abc import Callable
from itertools import permutations

import numpy as np
import pytest

import pellucid
from pellucid.core.errors import InputError
from pellucid.engine.coalitions import all_coalitions, exact_shapley, sampled_shapley
from pellucid.methods.attribution.shapley_values import shapley_values
from tests import plain


def over_all_orders(value: Callable[[frozenset[int]], float], players: int) -> np.ndarray:
    """The definition: the mean gain of each player over all orders."""
    orders = list(permutations(range(players)))
    total = np.zeros(players)
    for order in orders:
        for step, player in enumerate(order):
            before = frozenset(order[:step])
            total[player] += value(before | {player}) - value(before)
    return total / len(orders)


def test_exact_equals_the_definition_on_a_model() -> None:
    model = plain.tiny()
    prompt = plain.IDS[:4]

    def value(present: frozenset[int]) -> float:
        return float(plain.logits(model, [t if i in present else 3 for i, t in enumerate(prompt)])[plain.TARGET])

    found = shapley_values(pellucid.load(model), prompt, target=plain.TARGET, replacement=3, exact=True)
    np.testing.assert_allclose(found.scores, over_all_orders(value, 4), atol=1e-10)
    assert found.provenance.forwards == 16
    assert found.evidence[0].values["residual"] < 1e-10


def test_unanimity_games_have_their_closed_form() -> None:
    """v(S) = 1 if S holds all of T: every member of T gets 1/|T|."""
    masks = all_coalitions(6)
    for team in ([0], [1, 4], [0, 2, 3, 5]):
        values = masks[:, team].all(1).astype(float)[:, None]
        expected = np.zeros(6)
        expected[team] = 1 / len(team)
        np.testing.assert_allclose(exact_shapley(values, 6)[:, 0], expected, atol=1e-12)


def test_sampling_is_unbiased_and_its_error_is_honest() -> None:
    rng = np.random.default_rng(0)
    table = rng.normal(size=(2**6, 1)) + 3 * all_coalitions(6)[:, [0]] * all_coalitions(6)[:, [3]]
    truth = exact_shapley(table, 6)[:, 0]

    def value(masks: np.ndarray) -> np.ndarray:
        return table[masks @ (1 << np.arange(6))]

    runs = [
        sampled_shapley(6, value, permutations_at_most=24, precision=None, rng=np.random.default_rng(seed))
        for seed in range(200)
    ]
    means = np.stack([mean[:, 0] for mean, _, _ in runs])
    errors = np.stack([error[:, 0] for _, error, _ in runs])
    assert (np.abs(means.mean(0) - truth) < 3 * means.std(0, ddof=1) / 200**0.5 + 1e-12).all()
    covered = np.abs(means - truth) <= 2.2 * errors  # t quantile for 12 independent pairs
    assert 0.90 <= covered.mean() <= 0.99
    np.testing.assert_allclose(means.sum(1), float(table[-1, 0] - table[0, 0]), atol=1e-9)


def test_it_stops_when_precise_enough() -> None:
    additive = np.arange(5.0)

    def value(masks: np.ndarray) -> np.ndarray:
        return (masks @ additive)[:, None]

    mean, error, orders = sampled_shapley(
        5, value, permutations_at_most=400, precision=0.01, rng=np.random.default_rng(0)
    )
    np.testing.assert_allclose(mean[:, 0], additive, atol=1e-12)
    assert orders == 16
    assert error.max() < 1e-9


@pytest.mark.parametrize("orders", [2, 7, 25])
def test_all_orders_are_scored_together_and_as_many_as_asked(orders: int) -> None:
    calls: list[int] = []

    def value(masks: np.ndarray) -> np.ndarray:
        calls.append(len(masks))
        return masks.sum(1, keepdims=True) ** 2.0

    mean, error, count = sampled_shapley(
        5, value, permutations_at_most=orders, precision=None, rng=np.random.default_rng(0)
    )
    assert (count, calls) == (orders, [orders * 6])
    assert mean.sum() == pytest.approx(25.0)
    assert np.isnan(error).all() == (orders == 2)


def test_an_odd_number_of_orders_is_unbiased_and_its_error_honest() -> None:
    rng = np.random.default_rng(3)
    table = rng.normal(size=(2**5, 1))
    truth = exact_shapley(table, 5)[:, 0]

    def value(masks: np.ndarray) -> np.ndarray:
        return table[masks @ (1 << np.arange(5))]

    runs = [
        sampled_shapley(5, value, permutations_at_most=25, precision=None, rng=np.random.default_rng(seed))
        for seed in range(200)
    ]
    means, errors = np.stack([run[0][:, 0] for run in runs]), np.stack([run[1][:, 0] for run in runs])
    assert (np.abs(means.mean(0) - truth) < 3 * means.std(0, ddof=1) / 200**0.5 + 1e-12).all()
    assert 0.90 <= (np.abs(means - truth) <= 2.18 * errors).mean() <= 0.99  # t quantile for 13 independent draws


def test_too_few_orders_for_an_error_are_said_to_be() -> None:
    found = shapley_values(pellucid.load(plain.tiny()), plain.IDS, target=plain.TARGET, replacement=3, permutations=1)
    assert "too few" in found.evidence[1].summary


def test_the_sampled_form_nears_the_exact_one_on_a_model() -> None:
    subject = pellucid.load(plain.tiny("llama"))
    exact = shapley_values(subject, plain.IDS, target=plain.TARGET, replacement=3, exact=True)
    sampled = shapley_values(subject, plain.IDS, target=plain.TARGET, replacement=3, permutations=64, seed=1)
    assert sampled.std_error is not None
    assert (np.abs(sampled.scores - exact.scores) < 4.5 * sampled.std_error + 1e-9).all()
    assert sampled.scores.sum() == pytest.approx(exact.scores.sum(), abs=1e-9)


def test_deleting_everything_leaves_a_start_token() -> None:
    model = plain.tiny()
    found = shapley_values(pellucid.load(model), [11, 42], target=plain.TARGET, replacement="delete", exact=True)
    whole, nothing = plain.logits(model, [11, 42])[plain.TARGET], plain.logits(model, [1])[plain.TARGET]
    assert found.scores.sum() == pytest.approx(float(whole - nothing), abs=1e-10)


def test_too_many_units_for_enumeration_are_refused() -> None:
    with pytest.raises(InputError, match="13 units"):
        shapley_values(pellucid.load(plain.tiny()), list(range(5, 18)), target=plain.TARGET, exact=True)
