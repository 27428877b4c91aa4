"""CIMI on models whose needed words are known; its gradient against finite differences is the engine's."""

import numpy as np
import pytest

import pellucid
from pellucid import Target
from pellucid.methods.attribution.cimi import cimi
from tests import plain
from tests.linear import linear


@pytest.mark.slow
def test_words_without_a_part_in_the_output_become_noise() -> None:
    """On the linear model the word of weight 0 may go, the words that carry the answer must stay."""
    for number in (7, 11):
        case = linear(number)
        found = cimi(case.subject, case.ids, **case.asked)
        needed, idle = found.scores[case.weights > 0], found.scores[case.weights == 0]
        assert needed.mean() > 0.2
        assert idle.max() < 0.5 * needed.min()
        check = found.evidence[0]
        assert check.ok
        assert check.values["outside"] < check.values["inside"]


def test_training_lowers_what_the_mask_leaves_open() -> None:
    case = linear(3)
    before, after = (cimi(case.subject, case.ids, **case.asked, steps=steps).evidence[0] for steps in (1, 60))
    assert after.values["outside"] < before.values["outside"]


@pytest.mark.slow
def test_without_a_price_everything_may_stay() -> None:
    case = linear(3)
    dear, free = (cimi(case.subject, case.ids, **case.asked, sparsity=price).scores for price in (3.0, 0.0))
    assert dear.mean() < free.mean()


def test_one_mask_for_all_targets() -> None:
    subject = pellucid.load(plain.tiny())
    found = cimi(subject, plain.IDS, target=Target.continuation([17, 20], each=True), steps=2)
    assert found.scores.shape == (6, 2)
    np.testing.assert_array_equal(found.scores[:, 0], found.scores[:, 1])
