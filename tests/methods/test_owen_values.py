"""Owen values over sentences of words, over halves, and sampled."""

import numpy as np
import pytest

import pellucid
from pellucid.engine.coalitions import exact_shapley
from pellucid.engine.hierarchy import exact_weights, nested
from pellucid.methods.attribution.owen_values import owen_values
from tests import games, plain
from tests.linear import linear

TEXT = "Good plot. But bad acting. Still fun."
WORDS = TEXT.split()
SENTENCES = [0, 0, 1, 1, 1, 2, 2]


def worth(texts: list[str]) -> list[float]:
    """A film is worth its plot, doubled with fun, less its acting where both words of that are there."""
    has = [[word in text for word in ("Good", "bad", "acting", "fun")] for text in texts]
    return [g * (1.0 + f) - 1.5 * (b and a) * (1 - 0.5 * f) for g, b, a, f in has]


def test_words_join_within_their_sentence() -> None:
    """Against the weights of the hierarchy written down by hand."""
    found = owen_values(pellucid.load(worth), TEXT)
    masks, weights = exact_weights(nested(range(7), [SENTENCES]))
    values = worth([" ".join(w for w, keep in zip(WORDS, mask, strict=True) if keep) for mask in masks])
    np.testing.assert_allclose(found.scores, weights.T @ values, atol=1e-12)
    assert found.title == "Owen values, exact"
    assert not np.allclose(found.scores, exact_shapley(_table(), 7)[:, 0])
    assert list(found.evidence[1].values.values()) == pytest.approx(
        [found.scores[[i for i, s in enumerate(SENTENCES) if s == k]].sum() for k in range(3)]
    )


def _table() -> np.ndarray:
    texts = [" ".join(w for i, w in enumerate(WORDS) if bits >> i & 1) for bits in range(2**7)]
    return np.array(worth(texts))[:, None]


def test_sampled_values_lie_within_their_errors() -> None:
    text = f"{TEXT} Good jokes about bad food and fun. Her acting was better than this."
    exact = owen_values(pellucid.load(worth), text, permutations=400).scores
    found = owen_values(pellucid.load(worth), text, permutations=20)
    assert found.std_error is not None
    assert (np.abs(found.scores - exact) < 5 * found.std_error + 1e-9).all()
    assert found.scores.sum() == pytest.approx(exact.sum())


def test_without_text_it_is_the_shapley_value() -> None:
    model = plain.tiny()
    truth = exact_shapley(games.of_model(model, plain.IDS, 3), 6)[:, 0]
    found = owen_values(pellucid.load(model), plain.IDS, target=plain.TARGET, replacement=3)
    np.testing.assert_allclose(found.scores, truth, atol=1e-9)


def test_halves_are_exact_with_few_forwards() -> None:
    ids = list(range(5, 21))
    found = owen_values(
        pellucid.load(plain.tiny()), ids, target=plain.TARGET, replacement=3, hierarchy="halves", permutations=24
    )
    assert found.title == "Owen values, exact"
    assert found.provenance.forwards < 400
    assert found.evidence[0].values["residual"] < 1e-9


def test_a_linear_model_gives_its_weights() -> None:
    case = linear()
    for hierarchy in ("text", "halves"):
        found = owen_values(case.subject, case.ids, **case.asked, replacement=case.blank, hierarchy=hierarchy)
        np.testing.assert_allclose(found.scores, case.weights, atol=1e-5)
