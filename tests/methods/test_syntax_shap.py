"""SyntaxShap against its coalitions written as sets."""

from itertools import chain, combinations

import numpy as np
import pytest

import pellucid
from pellucid.core.errors import InputError
from pellucid.methods.attribution.syntax_shap import syntax_shap
from tests import plain
from tests.linear import linear

FILL = 3
HEADS = [1, -1, 1, 2, 2, 2]
LEVELS = [1, 0, 1, 2, 2, 2]


def value(model: object, present: frozenset[int]) -> float:
    ids = [t if i in present else FILL for i, t in enumerate(plain.IDS)]
    return float(plain.logits(model, ids)[plain.TARGET])


def subsets(items: list[int]) -> list[frozenset[int]]:
    return [frozenset(s) for s in chain.from_iterable(combinations(items, k) for k in range(len(items) + 1))]


def coalitions(i: int) -> set[frozenset[int]]:
    found = set()
    for level in range(LEVELS[i] + 1):
        above = frozenset(j for j in range(6) if LEVELS[j] < level)
        found |= {above | s for s in subsets([j for j in range(6) if LEVELS[j] == level and j != i])}
    return found


def test_equals_the_definition() -> None:
    model = plain.tiny("llama")
    expected = [np.mean([value(model, s | {i}) - value(model, s) for s in coalitions(i)]) for i in range(6)]
    sizes = [LEVELS.count(level) for level in range(3)]
    for i in range(6):  # the paper's count of allowed coalitions
        below = sum(2 ** sizes[p] for p in range(LEVELS[i]))
        assert len(coalitions(i)) == below + 2 ** (sizes[LEVELS[i]] - 1) - LEVELS[i]
    subject = pellucid.load(model)
    found = syntax_shap(subject, plain.IDS, target=plain.TARGET, replacement=FILL, heads=HEADS)
    np.testing.assert_allclose(found.scores, expected, atol=1e-10)
    weighted = syntax_shap(subject, plain.IDS, target=plain.TARGET, replacement=FILL, heads=HEADS, weighted=True)
    np.testing.assert_allclose(weighted.scores, np.array(expected) / (np.array(LEVELS) + 1), atol=1e-10)


def test_without_a_parse_the_units_stand_on_each_other() -> None:
    model = plain.tiny("llama")
    found = syntax_shap(pellucid.load(model), plain.IDS, target=plain.TARGET, replacement=FILL)
    prefixes = [frozenset(range(k)) for k in range(7)]
    expected = [
        np.mean([value(model, prefix | {i}) - value(model, prefix) for prefix in prefixes[: i + 1]]) for i in range(6)
    ]
    np.testing.assert_allclose(found.scores, expected, atol=1e-10)
    assert found.evidence[0].ok is False
    assert "chain" in found.evidence[0].summary


def test_wide_levels_are_sampled() -> None:
    calls: list[int] = []

    def score(texts: list[str]) -> list[float]:
        calls.append(len(texts))
        return [float(sum(int(w) for w in t.split() if w.isdigit())) for t in texts]

    words = " ".join(str(i) for i in range(1, 21))
    found = syntax_shap(pellucid.load(score), words, heads=[-1] + [0] * 19, samples=8)
    np.testing.assert_allclose(found.scores, np.arange(1.0, 21.0), atol=1e-9)  # additive: any coalitions give w
    assert sum(calls) < 1 + 2 + 20 * 20


def test_a_linear_model_gets_its_weights() -> None:
    model = linear()
    heads = [1, -1, 1, 2, 2]
    found = syntax_shap(model.subject, model.ids, replacement=model.blank, heads=heads, **model.asked)
    np.testing.assert_allclose(found.scores, model.weights, atol=1e-5)


@pytest.mark.parametrize(
    ("heads", "words"),
    [([1, -1], "there are 2"), ([0] * 6, "the root"), ([1, 0, -1, 2, 2, 2], "cycle"), ([9, -1, 1, 1, 1, 1], "head 9")],
)
def test_heads_that_are_no_tree(heads: list[int], words: str) -> None:
    with pytest.raises(InputError, match=words):
        syntax_shap(pellucid.load(plain.tiny()), plain.IDS, target=plain.TARGET, heads=heads)
