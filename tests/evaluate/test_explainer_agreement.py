"""Explainer agreement by counting pairs, and its edges."""

from itertools import combinations

import numpy as np
import pytest

import pellucid
from pellucid.core.errors import InputError
from pellucid.core.results import Scores
from pellucid.core.tokens import Tokens
from pellucid.evaluate.explainer_agreement import explainer_agreement
from tests import plain


def scored(*values: float) -> Scores:
    return Scores(values=np.array(values))


def test_tau_counts_pairs_and_overlap_counts_the_highest() -> None:
    a, b = np.array([0.9, -0.5, 0.3, 0.7, 0.1]), np.array([0.2, -0.4, 0.6, 0.9, -0.1])
    alike = sum(np.sign(a[i] - a[j]) * np.sign(b[i] - b[j]) for i, j in combinations(range(5), 2))
    values = explainer_agreement(scored(*a), scored(*b), top=2).values
    assert values["value"] == pytest.approx(alike / 10)
    assert values["top_overlap"] == 0.5, "only the fourth is among the two highest of both"
    assert values["top_overlap_chance"] == 0.4
    assert values["sign_agreement"] == 1


def test_ends_of_the_scale() -> None:
    up, down = scored(1, 2, 3, 4), scored(-1, -2, -3, -4)
    assert explainer_agreement(up, up).values["value"] == pytest.approx(1)
    assert explainer_agreement(up, down).values["value"] == pytest.approx(-1)
    assert explainer_agreement(up, down, absolute=True).values["value"] == pytest.approx(1)
    assert np.isnan(explainer_agreement(up, scored(5, 5, 5, 5)).values["value"])


def test_noise_below_the_resolution_is_no_ranking() -> None:
    """Without ties the last three would be ranked the other way round, and tau would be 0."""
    a, b = scored(10, 0.01, 0.02, 0.03), scored(10, 0.03, 0.02, 0.01)
    assert explainer_agreement(a, b).values["value"] == pytest.approx(1)
    assert explainer_agreement(a, b, resolution=0.0).values["value"] == pytest.approx(0)


def test_random_rankings_agree_at_the_chance_levels() -> None:
    rng = np.random.default_rng(0)
    found = [explainer_agreement(scored(*rng.random(8)), scored(*rng.random(8))).values for _ in range(400)]
    assert np.mean([values["value"] for values in found]) == pytest.approx(0, abs=0.05)
    assert np.mean([values["top_overlap"] for values in found]) == pytest.approx(3 / 8, abs=0.04)


def test_runs_on_the_results_of_methods_by_name() -> None:
    subject = pellucid.load(plain.tiny("gpt2"))
    results = [pellucid.run(name, subject, plain.IDS, target=17) for name in ("occlusion", "gradient_x_input")]
    found = pellucid.run("explainer_agreement", *results)
    assert "occlusion and gradient_x_input rank the 6 parts" in found.summary


def test_different_inputs_are_refused() -> None:
    with pytest.raises(InputError, match="same input and axes"):
        explainer_agreement(scored(1, 2), scored(1, 2, 3))
    with pytest.raises(InputError, match="not finite"):
        explainer_agreement(scored(1, float("nan")), scored(1, 2))
    one, two = (Tokens(ids, ("", ""), (False, False)) for ids in ((1, 2), (1, 3)))
    with pytest.raises(InputError, match="different prompts"):
        explainer_agreement(Scores(values=np.ones(2), tokens=one), Scores(values=np.ones(2), tokens=two))
