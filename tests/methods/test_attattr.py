"""AttAttr: completeness in every layer, the integral by brute force on edited patterns, and a tree worked by hand."""

from typing import Any

import numpy as np
import pytest

import pellucid
from pellucid import Edit, Target
from pellucid.core.errors import TargetError
from pellucid.engine.capture import capture
from pellucid.engine.question import ask
from pellucid.methods.attention.attattr import _tree, attattr
from tests import plain


def score(subject: pellucid.Subject, *edits: Edit, target: Any = 1) -> float:
    question = ask(subject.with_(*edits) if edits else subject, plain.IDS, target=target)
    return float(question.score(np.ones((1, 6), dtype=bool), "delete")[0, 0])


@pytest.mark.parametrize(
    ("name", "steps", "bar"), [("gpt2", 24, 1e-5), ("bert-classifier", 24, 1e-5), ("t5", 200, 1e-3)]
)
def test_every_layer_adds_up_to_the_effect_of_its_attention(name: str, steps: int, bar: float) -> None:
    """A T5's feed-forward layers have kinks, so that its integral needs more steps."""
    subject = pellucid.load(plain.tiny(name))
    found = attattr(subject, plain.IDS, target=1, view="pairs", steps=steps)
    [check] = found.evidence
    assert check.ok
    stack = "encoder." if name == "t5" else ""
    effects = [score(subject) - score(subject, Edit(f"{stack}blocks.{i}.attn.pattern", "zero")) for i in range(2)]
    assert np.abs(effects).min() > 1e-4
    np.testing.assert_allclose(check.curves["effect"], effects, atol=1e-9)
    np.testing.assert_allclose(found.values.sum((1, 2)), effects, atol=bar)


def test_equals_the_paper_by_finite_differences() -> None:
    """Right Riemann steps of all heads scaled together; each gradient by moving one weight of the scaled pattern."""
    subject = pellucid.load(plain.tiny())
    site, query, key = "blocks.0.attn.pattern", 4, 1
    own = capture(subject, plain.IDS, [site])[site]
    expected = 0.0
    for head in range(len(own)):
        for step in (1, 2, 3):
            ends = []
            for shift in (1e-5, -1e-5):
                pattern = own * (step / 3)
                pattern[head, query, key] += shift
                ends.append(score(subject, Edit(site, "set", pattern), target=plain.TARGET))
            expected += float(own[head, query, key]) * (ends[0] - ends[1]) / 2e-5 / 3
    assert abs(expected) > 1e-6
    found = attattr(
        subject, plain.IDS, target=plain.TARGET, view="pairs", steps=3, quadrature="riemann_right", layers=[0]
    )
    assert found.values[0, query, key] == pytest.approx(expected, abs=1e-8)


def test_a_head_that_is_switched_off_has_no_importance() -> None:
    subject = pellucid.load(plain.tiny())
    silent = subject.with_(Edit("blocks.1.attn.pattern", "zero", where={"head": 2}))
    found = attattr(silent, plain.IDS, target=plain.TARGET, steps=4)
    assert found.axes == ("layer", "head")
    assert found.values[1, 2] == 0
    assert (found.values[1, [0, 1, 3]] > 0).any()


def test_a_tree_worked_by_hand() -> None:
    """Token 2 has the largest attributions; above it takes 1, below 1 takes 0; weak and repeated edges stay out."""
    pairs = np.zeros((2, 4, 4))
    pairs[1, 2, 1], pairs[1, 2, 0], pairs[1, 3, 0] = 1.0, 0.3, 0.9  # 0.3 is weak; 3 is not in the tree
    pairs[0, 1, 0], pairs[0, 2, 1], pairs[0, 3, 2], pairs[0, 3, 3] = 0.5, 0.8, 0.3, 0.9  # 1 is in the tree already
    expected = np.zeros_like(pairs)
    expected[1, 2, 1], expected[0, 1, 0] = 1.0, 0.5
    np.testing.assert_array_equal(_tree(pairs, 0.4), expected)


def test_the_tree_keeps_pairs_and_gives_each_token_one_parent() -> None:
    subject = pellucid.load(plain.tiny())
    tree = attattr(subject, plain.IDS, target=plain.TARGET, view="tree", steps=4, threshold=0.1).values
    pairs = attattr(subject, plain.IDS, target=plain.TARGET, view="pairs", steps=4).values
    assert (tree != 0).any()
    np.testing.assert_array_equal(tree[tree != 0], pairs[tree != 0])
    assert ((tree != 0).sum((0, 1)) <= 1).all()


def test_refuses_several_targets() -> None:
    subject = pellucid.load(plain.tiny())
    with pytest.raises(TargetError, match="2 targets"):
        attattr(subject, plain.IDS, target=Target.continuation([17, 33], each=True))


def test_a_continuation_adds_up_too() -> None:
    subject = pellucid.load(plain.tiny())
    found = attattr(subject, plain.IDS, target=Target.continuation([17, 33]), steps=24)
    assert found.evidence[0].values["residual"] == pytest.approx(0, abs=1e-5)
    assert np.isfinite(found.values).all()
