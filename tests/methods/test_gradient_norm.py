"""Gradient norm against finite differences."""

import numpy as np
import pytest

import pellucid
from pellucid.methods.attribution.gradient_norm import gradient_norm
from tests import plain


@pytest.mark.parametrize("name", ["gpt2", "opt"])
@pytest.mark.parametrize(("reduce", "power"), [("l2", 2), ("l1", 1)])
def test_equals_the_norm_of_finite_differences(name: str, reduce: str, power: int) -> None:
    model = plain.tiny(name)
    found = gradient_norm(pellucid.load(model), plain.IDS, target=plain.TARGET, reduce=reduce)
    expected = plain.gradient(model, plain.IDS).norm(p=power, dim=-1).numpy()
    np.testing.assert_allclose(found.scores, expected, rtol=1e-5)


def test_a_unit_has_the_sum_of_its_tokens() -> None:
    subject = pellucid.load(plain.tiny())
    single = gradient_norm(subject, plain.IDS, target=plain.TARGET)
    joined = gradient_norm(subject, plain.IDS, target=plain.TARGET, unit=[(0, 2), (2, 6)])
    np.testing.assert_allclose(joined.scores, [single.scores[:2].sum(), single.scores[2:].sum()])


def test_a_contrast_differentiates_the_difference() -> None:
    model = plain.tiny()
    found = gradient_norm(pellucid.load(model), plain.IDS, target=plain.TARGET, contrast=plain.CONTRAST)
    both = plain.gradient(model, plain.IDS) - plain.gradient(model, plain.IDS, plain.CONTRAST)
    np.testing.assert_allclose(found.scores, both.norm(dim=-1).numpy(), rtol=1e-5)
