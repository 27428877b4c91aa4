"""Expected gradients: the plain average over the same draws, one token's background, and the sum in expectation."""

import numpy as np
import pytest
import torch

import pellucid
from pellucid.methods.attribution.expected_gradients import expected_gradients
from pellucid.methods.attribution.integrated_gradients import integrated_gradients
from tests import plain


def test_equals_the_average_over_the_same_draws() -> None:
    model = plain.tiny()
    generator = torch.Generator().manual_seed(5)
    drawn = torch.randint(100, (4, 6), generator=generator)
    share = (torch.arange(4) + torch.rand(4, generator=generator)) / 4
    share = share[torch.randperm(4, generator=generator)]
    end, rows = plain.embeddings(model, plain.IDS), []
    for ids, a in zip(drawn.tolist(), share, strict=True):
        start = plain.embeddings(model, ids)
        point = (start + a * (end - start)).requires_grad_()
        plain.from_embeddings(model, point)[plain.TARGET].backward()
        assert point.grad is not None
        rows.append((point.grad * (end - start)).sum(-1).detach().numpy())
    found = expected_gradients(pellucid.load(model), plain.IDS, target=plain.TARGET, samples=4, seed=5)
    np.testing.assert_allclose(found.scores, np.mean(rows, 0), atol=1e-7)
    np.testing.assert_allclose(found.std_error, np.std(rows, 0, ddof=1) / 2, atol=1e-7)


def test_with_one_token_as_background_it_is_integrated_gradients() -> None:
    subject = pellucid.load(plain.tiny())
    found = expected_gradients(subject, plain.IDS, target=plain.TARGET, background=[[3]], samples=400)
    exact = integrated_gradients(subject, plain.IDS, target=plain.TARGET, baseline=3)
    np.testing.assert_allclose(found.scores, exact.scores, atol=5e-3 * np.abs(exact.scores).max())


def test_the_gap_is_what_chance_leaves() -> None:
    subject = pellucid.load(plain.tiny())
    found = expected_gradients(subject, plain.IDS, target=plain.TARGET, samples=64, background=[[5, 6], [7, 8, 9]])
    books = found.evidence[0]
    assert books.ok
    assert books.values["residual"] < 0.3 * abs(books.values["difference"])
    again = expected_gradients(subject, plain.IDS, target=plain.TARGET, samples=64, background=[[5, 6], [7, 8, 9]])
    np.testing.assert_array_equal(found.scores, again.scores)


def test_units_left_out_stay() -> None:
    """With only the second token explained, every other embedding is its own, so its gradient does not count."""
    subject = pellucid.load(plain.tiny())
    found = expected_gradients(subject, plain.IDS, target=plain.TARGET, background=[[3]], samples=300, unit=[(1, 2)])
    logits = [plain.logits(subject.model, ids)[plain.TARGET] for ids in (plain.IDS, [11, 3, *plain.IDS[2:]])]
    assert found.scores[0] == pytest.approx(float(logits[0] - logits[1]), abs=1e-4)
