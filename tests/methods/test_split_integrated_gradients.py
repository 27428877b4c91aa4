"""Split integrated gradients: both parts are the whole, each adds up to its piece of the way; where the split is."""

import numpy as np
import pytest
import torch

import pellucid
from pellucid import Target
from pellucid.methods.attribution.integrated_gradients import integrated_gradients
from pellucid.methods.attribution.split_integrated_gradients import split_integrated_gradients
from tests import plain


@pytest.mark.parametrize("share", [0.3, 0.9])
def test_both_parts_together_are_integrated_gradients(share: float) -> None:
    subject = pellucid.load(plain.tiny())
    left, right = (
        split_integrated_gradients(subject, plain.IDS, target=plain.TARGET, baseline=3, part=part, share=share)
        for part in ("left", "right")
    )
    whole = integrated_gradients(subject, plain.IDS, target=plain.TARGET, baseline=3)
    np.testing.assert_allclose(left.scores + right.scores, whole.scores, atol=1e-6)
    assert np.abs(left.scores).max() > 1e-5
    change = whole.evidence[0].values["difference"]
    # The split is found between two of 32 places by a straight line.
    assert left.scores.sum() == pytest.approx(share * change, rel=2e-2)
    assert left.evidence[1].ok
    assert right.evidence[1].ok


@pytest.mark.slow
def test_the_split_is_the_first_place_where_the_share_is_reached() -> None:
    model = plain.tiny()
    end, start = plain.embeddings(model, plain.IDS), plain.embeddings(model, [3] * 6)
    with torch.no_grad():
        way = [
            float(plain.from_embeddings(model, start + a * (end - start)).softmax(-1)[plain.TARGET])
            for a in np.linspace(0, 1, 2001)
        ]
    made = (np.array(way) - way[0]) / (way[-1] - way[0])
    expected = np.argmax(made >= 0.6) / 2000
    found = split_integrated_gradients(
        pellucid.load(model), plain.IDS, target=Target(plain.TARGET, measure="prob"), baseline=3, share=0.6, steps=64
    )
    assert found.evidence[0].values["split"] == pytest.approx(expected, abs=2e-3)


def test_the_ends_of_the_share() -> None:
    subject = pellucid.load(plain.tiny())
    all_of_it = split_integrated_gradients(subject, plain.IDS, target=plain.TARGET, baseline=3, share=0.0, part="right")
    whole = integrated_gradients(subject, plain.IDS, target=plain.TARGET, baseline=3)
    np.testing.assert_allclose(all_of_it.scores, whole.scores, atol=1e-10)
    nothing = split_integrated_gradients(subject, plain.IDS, target=plain.TARGET, baseline=3, share=0.0)
    np.testing.assert_allclose(nothing.scores, 0, atol=1e-12)


def test_each_target_has_its_own_split() -> None:
    subject = pellucid.load(plain.tiny())
    target = Target.continuation([17, 33], each=True, measure="logit")
    matrix = split_integrated_gradients(subject, plain.IDS, target=target, baseline=3)
    alone = split_integrated_gradients(subject, plain.IDS, target=17, baseline=3)
    np.testing.assert_allclose(matrix.scores[:, 0], alone.scores, atol=1e-9)
