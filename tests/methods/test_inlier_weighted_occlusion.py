"""Inlier-weighted occlusion: occlusion and plain averages as its borders, and weights that tell text from noise."""

import numpy as np
import pytest
import torch

import pellucid
from pellucid.core.errors import CapabilityError, InputError, ModelError
from pellucid.engine.likelihood import mean_log_likelihood
from pellucid.methods.attribution.inlier_weighted_occlusion import inlier_weighted_occlusion
from pellucid.methods.attribution.occlusion import occlusion
from tests import plain
from tests.linear import linear


def test_with_everything_kept_it_is_occlusion() -> None:
    subject = pellucid.load(plain.tiny("llama"))
    found = inlier_weighted_occlusion(subject, plain.IDS, target=plain.TARGET, keep=1.0, samples=3, replacement=3)
    expected = occlusion(subject, plain.IDS, target=plain.TARGET, replacement=3)
    np.testing.assert_allclose(found.scores, expected.scores, atol=1e-10)


def test_the_weights_are_the_likelihood_of_the_changed_text() -> None:
    """Two contexts by hand: the mean of two drops, weighted by exp(mean log-likelihood)."""
    model = plain.tiny("llama")
    contexts = np.random.default_rng(5).random((2, 1, 6)) < 0.6

    def ids(present: np.ndarray) -> list[int]:
        return [t if here else 3 for t, here in zip(plain.IDS, present, strict=True)]

    def natural(row: list[int]) -> float:
        with torch.no_grad():
            log_probs = model(input_ids=torch.tensor([row])).logits[0].log_softmax(-1)
        return float(np.exp(np.mean([float(log_probs[k, row[k + 1]]) for k in range(5)])))

    expected = []
    for i in range(6):
        drops, weights = [], []
        for context in contexts[:, 0]:
            present, absent = context.copy(), context.copy()
            present[i], absent[i] = True, False
            both = [float(plain.logits(model, ids(m))[plain.TARGET]) for m in (present, absent)]
            drops.append(both[0] - both[1])
            weights.append(natural(ids(absent)))
        expected.append(np.average(drops, weights=weights))
    found = inlier_weighted_occlusion(
        pellucid.load(model), plain.IDS, target=plain.TARGET, replacement=3, samples=2, keep=0.6, seed=5
    )
    np.testing.assert_allclose(found.scores, expected, atol=1e-10)


def test_unnatural_inputs_do_not_count() -> None:
    """A black box that goes mad on texts with the mark: a function that sees it brings the true weights back."""

    def score(texts: list[str]) -> list[float]:
        return [2.0 * t.count("good") - t.count("bad") + 9 * ("mad" in t and "sane" not in t) for t in texts]

    subject = pellucid.load(score)
    prompt = "good mad bad sane good"
    pieces = {index: piece for piece, index in subject.state.cache.setdefault("pieces", {}).items()}

    def inlier(rows: list[tuple[int, ...]]) -> list[float]:
        pieces.update({index: piece for piece, index in subject.state.cache["pieces"].items()})
        texts = ["".join(pieces[i] for i in row) for row in rows]
        return [1.0 if not ("mad" in t and "sane" not in t) else 0.0 for t in texts]

    naive = inlier_weighted_occlusion(subject, prompt, inlier=lambda rows: np.ones(len(rows)), samples=64, keep=0.7)
    found = inlier_weighted_occlusion(subject, prompt, inlier=inlier, samples=64, keep=0.7)
    np.testing.assert_allclose(found.scores[[0, 2, 4]], [2, -1, 2], atol=1e-9)
    assert abs(naive.scores[3]) > 3
    assert abs(found.scores[3]) < 1e-9


def test_a_linear_model_gets_its_weights() -> None:
    model = linear()
    found = inlier_weighted_occlusion(
        model.subject, model.ids, replacement=model.blank, samples=4, keep=0.5, **model.asked
    )
    np.testing.assert_allclose(found.scores, model.weights, atol=1e-5)
    assert found.std_error is not None
    assert found.std_error.max() < 1e-5


@pytest.mark.slow
def test_the_reported_error_covers_the_truth() -> None:
    """Constant weights: 200 runs against the value over all contexts; nominal 95 % by Student's t."""
    from scipy import stats

    rng = np.random.default_rng(0)
    table = rng.normal(size=16)

    def score(texts: list[str]) -> list[float]:
        return [float(table[sum(2**k for k, w in enumerate("abcd") if w in t.split())]) for t in texts]

    gains = []
    for context in range(8):
        low = [context & 1, context >> 1 & 1, context >> 2 & 1]
        at = sum(2 ** (k + 1) for k, here in enumerate(low) if here)
        gains.append(table[at + 1] - table[at])
    truth, subject, hits, means = float(np.mean(gains)), pellucid.load(score), [], []
    for seed in range(200):
        found = inlier_weighted_occlusion(
            subject, "a b c d", inlier=lambda rows: np.ones(len(rows)), samples=24, keep=0.5, seed=seed,
            replacement="mask",
        )  # fmt: skip
        assert found.std_error is not None
        means.append(found.scores[0])
        hits.append(abs(found.scores[0] - truth) <= stats.t.ppf(0.975, 23) * found.std_error[0])
    assert 0.90 <= np.mean(hits) <= 0.99
    assert abs(np.mean(means) - truth) < 3 * np.std(means, ddof=1) / 200**0.5


def test_likelihood_is_the_mean_over_predicted_tokens() -> None:
    model = plain.tiny()
    found = mean_log_likelihood(pellucid.load(model), [(5, 6, 7), (9,), (5, 6)])
    with torch.no_grad():
        log_probs = model(input_ids=torch.tensor([[5, 6, 7]])).logits[0].log_softmax(-1)
    expected = [float(log_probs[0, 6] + log_probs[1, 7]) / 2, -np.log(100), float(log_probs[0, 6])]
    np.testing.assert_allclose(found, expected, atol=1e-10)


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(CapabilityError, match="inlier="):
        inlier_weighted_occlusion(pellucid.load(plain.tiny("bert-classifier")), plain.IDS, target=1)
    subject = pellucid.load(plain.tiny())
    with pytest.raises(InputError, match="no text to judge"):
        inlier_weighted_occlusion(subject, plain.IDS, replacement="mean")
    with pytest.raises(ModelError, match="1 numbers for"):
        inlier_weighted_occlusion(subject, plain.IDS, inlier=lambda rows: [1.0])
