"""A prompt as a game: what is scored once serves every index, and each generated token has its residual."""

from __future__ import annotations

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


def test_the_residual_of_every_target() -> None:
    values = np.array([[1.0, 2.0], [3.0, 4.0]])
    check = efficiency(values, np.array([4.0, 6.5]))
    assert check.curves["residual"] == (0.0, 0.5)
    assert check.values["residual"] == pytest.approx(0.5)
    assert not check.ok


def test_no_error_no_evidence() -> None:
    assert sampling_error(np.ones((2, 1)), None, 0, "orders") == ()
    assert sampling_error(np.ones((2, 1)), np.full((2, 1), 0.5), 8, "orders")[0].ok is False
