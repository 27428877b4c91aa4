"""A prompt as a game: what is scored once serves every index, and each generated token has its residual."""

from __future__ import annotations

from math import comb
from typing import Any

import numpy as np
import pytest

import pellucid
from pellucid.engine.game import efficiency, sampling_error
from tests import plain

TEN = [11, 42, 7, 23, 64, 5, 9, 31, 77, 50]


@pytest.mark.usefixtures("kept_scores")
def test_ten_units_are_enumerated_once_for_all_indices() -> None:
    subject = pellucid.load(plain.tiny())
    asked: dict[str, Any] = {"target": plain.TARGET, "replacement": 3}
    names = (
        "shapley_values",
        "banzhaf_values",
        "kernel_shap",
        "leverage_shapley",
        "lime",
        "shapley_interactions",
        "rise",
    )
    counted = 0
    for name in (*names, "sobol_indices"):
        more: dict[str, Any] = {"exact": True} if name == "shapley_values" else {"samples": 1024}
        found = pellucid.run(name, subject, TEN, **asked, **more)
        counted += found.provenance.forwards
        assert found.std_error is None
    assert counted == 1024


UNANIMITY: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("shapley_values", "shapley", {"exact": True}),
    ("kernel_shap", "shapley", {}),
    ("kernel_shap", "shapley", {"estimator": "regression"}),
    ("leverage_shapley", "shapley", {}),
    ("owen_values", "shapley", {"permutations": 1000}),
    ("banzhaf_values", "banzhaf", {}),
    ("shapley_interactions", "k-SII", {}),
    ("shapley_interactions", "STII", {"index": "STII"}),
)


@pytest.mark.parametrize(("method", "kind", "more"), UNANIMITY)
@pytest.mark.parametrize("team", ["b e", "a c f", "a c d g"])
def test_every_game_method_on_unanimity_games(method: str, kind: str, more: dict[str, Any], team: str) -> None:
    """A text is worth 1 where all words of the team are there: 1/|T|, 2^-(|T|-1), and 1/(|T|-1), 1/C(|T|,2) a pair."""
    words, members = ["a", "b", "c", "d", "e", "f", "g"], set(team.split())
    subject = pellucid.load(lambda texts: [float(members <= set(text.split())) for text in texts])
    found = pellucid.run(method, subject, " ".join(words), unit="word", **more).scores
    size, inside = len(members), np.array([word in members for word in words])
    closed = {"shapley": 1 / size, "banzhaf": 0.5 ** (size - 1), "k-SII": 1 / (size - 1), "STII": 1 / comb(size, 2)}
    if found.ndim == 2:
        found, inside = found[np.triu_indices(7, 1)], (inside[:, None] & inside)[np.triu_indices(7, 1)]
    np.testing.assert_allclose(found, closed[kind] * inside, atol=1e-9)


def test_the_residual_of_every_target() -> None:
    values = np.array([[1.0, 2.0], [3.0, 4.0]])
    check = efficiency(values, np.array([4.0, 6.5]))
    assert check.curves["residual"] == (0.0, 0.5)
    assert check.values["residual"] == pytest.approx(0.5)
    assert not check.ok


def test_no_error_no_evidence() -> None:
    assert sampling_error(np.ones((2, 1)), None, 0, "orders") == ()
    assert sampling_error(np.ones((2, 1)), np.full((2, 1), 0.5), 8, "orders")[0].ok is False
