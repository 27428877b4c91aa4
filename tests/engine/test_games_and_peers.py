"""The same numbers as shap and shapiq: exact ones to rounding, sampled ones within their sampling error."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pytest

import pellucid
from tests import games, plain

pytestmark = pytest.mark.peers

PLAYERS = 8
PROMPT = [11, 42, 7, 23, 64, 5, 9, 31]
ASKED: dict[str, Any] = {"target": plain.TARGET, "replacement": 3}


def peer(name: str) -> Any:
    """Import a peer, whose own warnings are no concern of ours, or skip."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip(name)


@cache
def model() -> Any:
    return plain.tiny("llama")


@cache
def table() -> np.ndarray:
    return games.of_model(model(), PROMPT, 3)


def value(masks: Any) -> np.ndarray:
    """Return the logits of coalitions, run by Hugging Face alone: [coalitions, players] -> [coalitions]."""
    return games.lookup(table())(np.asarray(masks).reshape(-1, PLAYERS) > 0.5)[:, 0]


def ours(name: str, **more: Any) -> Any:
    return pellucid.run(name, pellucid.load(model()), PROMPT, **ASKED, **more)


def runs(draw: Callable[[int], Any], count: int = 12) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean of several runs of a peer, and its standard error."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = np.array([draw(seed) for seed in range(count)])
    return found.mean(0), found.std(0, ddof=1) / count**0.5


def test_exact_shapley_values_equal_those_of_shap() -> None:
    shap = peer("shap")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        explainer = shap.explainers.ExactExplainer(value, shap.maskers.Independent(np.zeros((1, PLAYERS))))
        theirs = explainer(np.ones((1, PLAYERS))).values[0]
    for name, more in (("shapley_values", {"exact": True}), ("kernel_shap", {}), ("leverage_shapley", {})):
        np.testing.assert_allclose(ours(name, **more).scores, theirs, atol=1e-9)


def test_owen_values_over_halves_equal_those_of_partition_shap() -> None:
    shap = peer("shap")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pairs = [[0, 1], [2, 3], [4, 5], [6, 7], [8, 9], [10, 11], [12, 13]]
        tree = np.array(
            [[*pair, 1.0 + row // 4, 2.0 ** (1 + (row >= 4) + (row >= 6))] for row, pair in enumerate(pairs)]
        )
        masker = shap.maskers.Partition(np.zeros((1, PLAYERS)), clustering=tree)
        theirs = shap.explainers.PartitionExplainer(value, masker)(np.ones((1, PLAYERS)), max_evals=10_000).values[0]
    np.testing.assert_allclose(ours("owen_values", hierarchy="halves", permutations=2000).scores, theirs, atol=1e-9)


def test_sampled_shapley_values_agree_with_those_of_shap() -> None:
    shap = peer("shap")

    def kernel(seed: int) -> Any:
        np.random.seed(seed)  # noqa: NPY002 - the peer draws from the global generator
        explainer = shap.KernelExplainer(value, np.zeros((1, PLAYERS)))
        return explainer.shap_values(np.ones((1, PLAYERS)), nsamples=80, l1_reg=False, silent=True)[0]

    def permutation(seed: int) -> Any:
        masker = shap.maskers.Independent(np.zeros((1, PLAYERS)))
        explainer = shap.explainers.PermutationExplainer(value, masker, seed=seed)
        return explainer(np.ones((1, PLAYERS)), max_evals=2 * PLAYERS * 6 + 1, silent=True).values[0]

    for draw, name, more in (
        (kernel, "kernel_shap", {"samples": 80}),
        (kernel, "kernel_shap", {"samples": 80, "estimator": "regression"}),
        (permutation, "shapley_values", {"permutations": 12}),
    ):
        theirs, error = runs(draw)
        found = ours(name, **more)
        assert (np.abs(found.scores - theirs) < 4.5 * np.hypot(error, found.std_error) + 1e-6).all(), name


@pytest.mark.parametrize("index", ["k-SII", "STII", "FSII"])
def test_interactions_equal_those_of_shapiq(index: str) -> None:
    shapiq = peer("shapiq")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = shapiq.ExactComputer(game=value, n_players=PLAYERS)(index, order=2)
    found = ours("shapley_interactions", index=index).scores
    for members, place in theirs.interaction_lookup.items():
        if members:
            i, j = members[0], members[-1]
            assert found[i, j] == pytest.approx(float(theirs.values[place]), abs=1e-8), members


def test_values_equal_those_of_shapiq() -> None:
    shapiq = peer("shapiq")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        computer = shapiq.ExactComputer(game=value, n_players=PLAYERS)
        shapley, banzhaf = computer("SV", order=1), computer("BV", order=1)
    for name, theirs in (("kernel_shap", shapley), ("banzhaf_values", banzhaf)):
        expected = [float(theirs.values[theirs.interaction_lookup[i,]]) for i in range(PLAYERS)]
        np.testing.assert_allclose(ours(name).scores, expected, atol=1e-9)


def test_sampled_interactions_agree_with_those_of_shapiq() -> None:
    shapiq = peer("shapiq")

    def draw(seed: int) -> Any:
        approximator = shapiq.SHAPIQ(n=PLAYERS, max_order=2, index="k-SII", random_state=seed)
        found = approximator.approximate(120, value)
        return [[float(found[tuple(sorted({i, j}))]) for j in range(PLAYERS)] for i in range(PLAYERS)]

    theirs, error = runs(draw)
    found = ours("shapley_interactions", samples=120)
    assert (np.abs(found.scores - theirs) < 4.5 * np.hypot(error, found.std_error) + 1e-6).all()
