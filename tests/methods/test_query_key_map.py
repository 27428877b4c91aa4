"""The query-key map: attention is left as it is, distance follows q . k, and PCA is that of the stacked vectors."""

import numpy as np
import pytest
import torch

import pellucid
from pellucid.core.errors import InputError, SiteError
from pellucid.engine.query_key_space import queries_and_keys, shared_space, tracking
from pellucid.methods.attention.query_key_map import query_key_map
from tests import plain

PROMPTS = [plain.IDS, [9, 80, 3, 3], [51, 2]]


def softmax(scores: np.ndarray) -> np.ndarray:
    grown = np.exp(scores - scores.max(-1, keepdims=True))
    return grown / grown.sum(-1, keepdims=True)


def test_moving_and_rescaling_leaves_attention_as_it_is() -> None:
    model = plain.tiny("llama")
    subject = pellucid.load(model)
    found = queries_and_keys(subject, subject.encode(plain.IDS), 1)
    q, k = found.queries[:, 2], found.keys[:, 2]
    pairs = np.argwhere(np.tril(np.ones((6, 6), dtype=bool)))
    near, key = shared_space(q, k, pairs)
    model.set_attn_implementation("eager")
    with torch.no_grad():
        pattern = model(input_ids=torch.tensor([plain.IDS]), output_attentions=True).attentions[1][0, 2].numpy()
    model.set_attn_implementation("sdpa")
    mask = np.where(np.tril(np.ones((6, 6))) > 0, 0.0, -1e9)
    np.testing.assert_allclose(softmax(near @ key.T * q.shape[1] ** -0.5 + mask), pattern, atol=1e-6)
    np.testing.assert_allclose(key.mean(0), near.mean(0), atol=1e-9)


def test_rescaling_finds_the_factor_that_hides_distance() -> None:
    """Queries a hundred times longer than keys, and far from them: distance tells the query's length alone."""
    rng = np.random.default_rng(0)
    q, k = 10 * rng.normal(size=(40, 16)), rng.normal(size=(40, 16)) / 10 + 5
    pairs = np.argwhere(np.ones((40, 40), dtype=bool))
    products = (q[pairs[:, 0]] * (k - k.mean(0))[pairs[:, 1]]).sum(1)
    before, after = tracking(q, k, products, pairs), tracking(*shared_space(q, k, pairs), products, pairs)
    assert abs(before) < 0.3
    assert after < -0.6


def test_rows_name_every_query_and_key_and_evidence_compares_the_spaces() -> None:
    found = query_key_map(pellucid.load(plain.tiny("llama")), PROMPTS, layer=0, head=1)
    assert [row[:3] for row in found.rows[:2]] == [("query", 0, 0), ("query", 0, 1)]
    assert [row[:3] for row in found.rows[12:14]] == [("key", 0, 0), ("key", 0, 1)]
    assert found.rows[-1][1:3] == (2, 1)
    points = np.array([row[4:] for row in found.rows])
    np.testing.assert_allclose(points.mean(0), 0, atol=1e-9)
    assert abs(points[:, 0] @ points[:, 1]) < 1e-9, "principal components are not correlated"
    assert set(found.evidence[0].values) == {"as_they_are", "rescaled", "plane"}


def test_t_sne_gives_the_same_map_for_the_same_seed() -> None:
    subject = pellucid.load(plain.tiny("bert-classifier"))
    one, two = (query_key_map(subject, PROMPTS, reduction="tsne", seed=3) for _ in range(2))
    assert one.rows == two.rows
    assert np.isfinite([row[4:] for row in one.rows]).all()


def test_what_cannot_be_mapped_is_refused() -> None:
    with pytest.raises(InputError, match="at least 2 tokens"):
        query_key_map(pellucid.load(plain.tiny("llama")), [[3]])
    with pytest.raises(SiteError, match="computes attention by itself"):
        query_key_map(pellucid.load(plain.tiny("bloom")), PROMPTS)
