"""LIME against its weighted regression written out, its choice of units, its error bars, and captum."""

from math import comb

import numpy as np
import pytest
import torch

import pellucid
from pellucid.engine.coalitions import all_coalitions
from pellucid.methods.attribution.lime import lime
from tests import games, plain
from tests.linear import linear

LONG = [11, 42, 7, 23, 64, 5, 9, 31, 77]


def definition(table: np.ndarray, width: float = 25.0, ridge: float = 0.0) -> np.ndarray:
    """Solve the normal equations over all variants, each weighed by its chance and its nearness to the prompt."""
    players = int(np.log2(len(table)))
    masks = all_coalitions(players).astype(float)
    total = np.zeros((players + 1, players + 1))
    right = np.zeros(players + 1)
    weights = []
    for mask in masks:
        cosine = mask.sum() / (mask.sum() ** 0.5 * players**0.5) if mask.any() else 0.0
        weights.append(np.exp(-((100 * (1 - cosine)) ** 2) / width**2) ** 0.5 / comb(players, int(mask.sum())))
    for mask, weight, value in zip(masks, np.array(weights) * len(masks) / sum(weights), table[:, 0], strict=True):
        row = np.array([1.0, *mask])
        total += weight * np.outer(row, row)
        right += weight * value * row
    return np.linalg.solve(total + ridge * np.diag([0.0] + [1.0] * players), right)[1:]


@pytest.mark.parametrize(("width", "ridge"), [(25.0, 0.0), (10.0, 1.0)])
def test_all_variants_equal_the_written_out_regression(width: float, ridge: float) -> None:
    model = plain.tiny()
    expected = definition(games.of_model(model, plain.IDS, 3), width, ridge)
    found = lime(pellucid.load(model), plain.IDS, target=plain.TARGET, replacement=3, kernel_width=width, ridge=ridge)
    np.testing.assert_allclose(found.scores, expected, atol=1e-9)
    assert found.provenance.forwards == 64


def test_sampled_weights_lie_within_their_errors() -> None:
    model = plain.tiny("llama")
    expected = definition(games.of_model(model, LONG, 3))
    found = lime(pellucid.load(model), LONG, target=plain.TARGET, replacement=3, samples=300)
    assert found.std_error is not None
    assert (np.abs(found.scores - expected) < 4.5 * found.std_error).all()


def test_the_strongest_words_are_chosen() -> None:
    def film(texts: list[str]) -> list[float]:
        return [3.0 * ("good" in t) - 2.0 * ("bad" in t) + 0.1 * ("the" in t) for t in texts]

    subject, prompt = pellucid.load(film), "the plot is good and the acting bad"
    found = lime(subject, prompt, features=2)
    np.testing.assert_allclose(found.scores[[3, 7]], [3.0, -2.0], atol=0.05)
    assert (found.scores[[0, 1, 2, 4, 5, 6]] == 0).all()
    assert found.std_error is None
    assert lime(subject, prompt).evidence[0].values["r2"] > 0.99


def test_a_linear_model_gives_its_weights() -> None:
    case = linear()
    found = lime(case.subject, case.ids, **case.asked, replacement=case.blank, samples=25)
    np.testing.assert_allclose(found.scores, case.weights, atol=1e-5)


@pytest.mark.peers
def test_agrees_with_captum_on_the_same_regression() -> None:
    """Captum draws uniform masks; with a flat kernel and all variants both solve the same least squares."""
    captum = pytest.importorskip("captum.attr")
    linear_model = pytest.importorskip("captum._utils.models.linear_model")
    model = plain.tiny("llama").float()
    peer = captum.Lime(
        lambda x: model(input_ids=x).logits[:, -1], interpretable_model=linear_model.SkLearnLinearRegression(),
        similarity_func=lambda *_, **__: torch.tensor(1.0),
    )  # fmt: skip
    theirs = peer.attribute(
        torch.tensor([plain.IDS]), baselines=3, target=plain.TARGET, n_samples=2000, perturbations_per_eval=100
    )
    table, masks = games.of_model(model, plain.IDS, 3), all_coalitions(6)
    flat = np.linalg.lstsq(np.c_[np.ones(64), masks], table, rcond=None)[0][1:, 0]
    assert np.abs(theirs[0].numpy() - flat).max() < 0.1 * np.abs(flat).max()
