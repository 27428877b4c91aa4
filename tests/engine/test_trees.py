"""Trees against all trees of a short sentence."""

from itertools import product

import numpy as np
import pytest

from pellucid.engine.trees import depths, projective_tree, spanning_tree

WORDS = 5


def is_tree(heads: tuple[int, ...]) -> bool:
    if heads.count(-1) != 1 or any(h == d for d, h in enumerate(heads)):
        return False
    for start in range(len(heads)):
        at, steps = start, 0
        while at != -1 and steps <= len(heads):
            at, steps = heads[at], steps + 1
        if at != -1:
            return False
    return True


def is_projective(heads: tuple[int, ...]) -> bool:
    """No two arcs cross, and none covers the root."""
    root = heads.index(-1)
    arcs = [tuple(sorted((d, h))) for d, h in enumerate(heads) if h >= 0]
    crossing = any(a < c < b < d for a, b in arcs for c, d in arcs)
    return not crossing and not any(a < root < b for a, b in arcs)


TREES = [heads for heads in product(range(-1, WORDS), repeat=WORDS) if is_tree(heads)]


def weight(heads: tuple[int, ...], weights: np.ndarray) -> float:
    return float(sum(weights[d, h] for d, h in enumerate(heads) if h >= 0))


@pytest.mark.parametrize("seed", range(8))
def test_the_heaviest_tree_is_found(seed: int) -> None:
    weights = np.random.default_rng(seed).normal(size=(WORDS, WORDS))
    free, projective = spanning_tree(weights), projective_tree(weights)
    assert is_tree(free)
    assert is_tree(projective)
    assert is_projective(projective)
    assert weight(free, weights) == pytest.approx(max(weight(t, weights) for t in TREES))
    assert weight(projective, weights) == pytest.approx(max(weight(t, weights) for t in TREES if is_projective(t)))


def test_one_word_is_its_own_root() -> None:
    assert spanning_tree(np.zeros((1, 1))) == projective_tree(np.zeros((1, 1))) == (-1,)


def test_depths_and_what_is_no_tree() -> None:
    np.testing.assert_array_equal(depths([1, -1, 1, 2]), [1, 0, 1, 2])
    with pytest.raises(ValueError, match="cycle"):
        depths([1, 0, -1])
    with pytest.raises(ValueError, match="head 7"):
        depths([7, -1])
