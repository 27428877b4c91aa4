"""Integrated directional gradients: the paper's dividends by hand, the tree's sums, and trees that are none."""

import numpy as np
import pytest

import pellucid
from pellucid.core.errors import InputError
from pellucid.methods.attribution.integrated_directional_gradients import integrated_directional_gradients
from tests import plain


def test_equals_the_dividends_of_the_paper() -> None:
    model = plain.tiny()
    end, start = plain.embeddings(model, plain.IDS), plain.embeddings(model, [3] * 6)
    groups = [*((i, i + 1) for i in range(6)), (0, 2), (3, 6), (0, 6)]
    dividends = []
    for first, last in groups:
        direction = np.zeros(end.shape)
        direction[first:last] = (end - start)[first:last].numpy()
        direction /= np.linalg.norm(direction)
        total = 0.0
        for step in range(10):
            point = (start + (step + 0.5) / 10 * (end - start)).requires_grad_()
            plain.from_embeddings(model, point)[plain.TARGET].backward()
            assert point.grad is not None
            total += float((point.grad.numpy() * direction).sum()) / 10
        dividends.append(abs(total))
    shares = np.array(dividends) / sum(dividends)
    expected = [sum(s for s, (c, d) in zip(shares, groups, strict=True) if a <= c and d <= b) for a, b in groups]
    found = integrated_directional_gradients(
        pellucid.load(model), plain.IDS, target=plain.TARGET, baseline=3, tree=[(0, 2), (3, 6)], steps=10,
        quadrature="riemann_middle",
    )  # fmt: skip
    np.testing.assert_allclose(found.values, expected, atol=1e-9)
    assert found.values[-1] == pytest.approx(1)


def test_importance_grows_upwards_and_halves_are_the_default() -> None:
    found = integrated_directional_gradients(pellucid.load(plain.tiny("llama")), plain.IDS, target=plain.TARGET)
    assert found.values.shape == (11,)
    labels = found.labels["group"]
    assert labels[-1] == "".join(labels[:6])
    for inner, value in zip(labels, found.values, strict=True):
        assert all(value <= other + 1e-12 for name, other in zip(labels, found.values, strict=True) if inner in name)


@pytest.mark.parametrize(("tree", "why"), [([(0, 3), (2, 5)], "cross"), ([(0, 9)], "out of range")])
def test_what_is_no_tree_is_refused(tree: list[tuple[int, int]], why: str) -> None:
    with pytest.raises(InputError, match=why):
        integrated_directional_gradients(pellucid.load(plain.tiny()), plain.IDS, target=plain.TARGET, tree=tree)
