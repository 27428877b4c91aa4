"""ProxySPEX finds planted interactions among many words, and agrees with enumeration on a model."""

import numpy as np
import pytest

import pellucid
from pellucid import Target
from pellucid.methods.attribution.proxy_spex import proxy_spex
from pellucid.methods.attribution.shapley_interactions import shapley_interactions
from tests import plain
from tests.linear import linear

WORDS = [f"w{i:02d}" for i in range(40)]


def planted(texts: list[str]) -> list[float]:
    """Two words count alone, a pair only together, and a third word only with both of another pair."""
    return [
        2.0 * ("w03" in t) - 1.0 * ("w05" in t) + 3.0 * ("w07" in t and "w21" in t)
        + 4.0 * ("w01" in t and "w12" in t and "w30" in t)
        for t in texts
    ]  # fmt: skip


def test_planted_interactions_of_forty_words() -> None:
    found = proxy_spex(pellucid.load(planted), " ".join(WORDS), samples=500, index="FSII")
    off = found.scores - np.diag(np.diag(found.scores))
    assert off[7, 21] == pytest.approx(3.0, abs=0.3)
    strongest = {tuple(sorted(divmod(int(place), 40))) for place in np.argsort(-np.abs(off), axis=None)[:8]}
    assert strongest == {(7, 21), (1, 12), (1, 30), (12, 30)}
    assert found.scores[3, 3] == pytest.approx(2.0, abs=0.2)
    assert found.scores[5, 5] == pytest.approx(-1.0, abs=0.2)
    assert found.evidence[0].values["r2"] > 0.98
    assert any("w01" in name and "w12" in name and "w30" in name for name in found.evidence[1].values)
    assert found.provenance.forwards <= 626


def test_near_the_exact_interactions_of_a_model() -> None:
    subject = pellucid.load(plain.tiny("llama"))
    exact = shapley_interactions(subject, plain.IDS, target=plain.TARGET, replacement=3, index="FSII").scores
    found = proxy_spex(subject, plain.IDS, target=plain.TARGET, replacement=3, order=6).scores
    assert np.abs(found - exact).max() < 0.1 * np.abs(exact).max()


def test_a_linear_model_has_no_interactions() -> None:
    case = linear()
    found = proxy_spex(case.subject, case.ids, **case.asked, replacement=case.blank)
    np.testing.assert_allclose(found.scores, np.diag(case.weights), atol=1e-4)


def test_each_target_has_its_own_matrix() -> None:
    target = Target.continuation([17, 20], each=True)
    found = proxy_spex(pellucid.load(plain.tiny()), plain.IDS, target=target, replacement=3, samples=64)
    assert found.scores.shape == (6, 6, 2)
