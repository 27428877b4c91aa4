"""Effects over pairs: means of single pairs, paired intervals by hand, and nulls as far away as the values."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats

import pellucid
from pellucid.core.errors import InputError
from pellucid.core.pairs import Pair
from pellucid.engine.over_pairs import as_far, paired
from pellucid.methods.patching.activation_patching import activation_patching
from pellucid.methods.patching.path_patching import path_patching
from tests import plain

PAIRS = [
    Pair(plain.IDS, [11, 42, 8, 23, 64, 5]),
    Pair([30, 2, 7, 23, 61, 5], [30, 2, 9, 23, 61, 5]),
    Pair([1, 42, 7, 20, 64, 6], [1, 40, 7, 20, 64, 6]),
]
METHODS: list[tuple[Any, dict[str, Any]]] = [
    (activation_patching, {"site": "attn.z"}),
    (activation_patching, {"site": "resid_pre"}),
    (path_patching, {"receiver": "blocks.1.mlp"}),
    (path_patching, {"receiver": "blocks.1.attn.2.q"}),
]


@pytest.mark.slow
@pytest.mark.parametrize(("method", "given"), METHODS)
def test_the_mean_of_single_pairs_with_its_paired_error(method: Any, given: dict[str, Any]) -> None:
    subject = pellucid.load(plain.tiny("llama"))
    targets, contrasts = [17, 20, 3], [33, 34, 35]
    single = np.stack(
        [
            method(subject, pair, target=a, contrast=b, **given).values
            for pair, a, b in zip(PAIRS, targets, contrasts, strict=True)
        ]
    )
    found = method(
        subject, PAIRS[0], target=17, contrast=33, others=PAIRS[1:], other_targets=targets[1:],
        other_contrasts=contrasts[1:], **given,
    )  # fmt: skip
    np.testing.assert_allclose(found.values, single.mean(0), atol=1e-10)
    np.testing.assert_allclose(found.std_error, single.std(0, ddof=1) / np.sqrt(3), atol=1e-10)
    checks = {check.name: check for check in found.evidence}
    half = stats.t.ppf(0.975, 2) * single.std(0, ddof=1) / np.sqrt(3)
    assert checks["paired interval"].values["clear"] == pytest.approx((np.abs(single.mean(0)) > half).mean())
    curves = checks["null of equal norm"].curves
    np.testing.assert_allclose(curves["effect"], found.values.ravel())
    null = np.array(curves["null"])
    assert null.shape == (found.values.size,)
    still = found.values.ravel() == 0
    np.testing.assert_allclose(null[still], 0, atol=1e-8, err_msg="what is not moved has a null of 0")
    assert np.abs(null[~still]).max() > 1e-4
    assert np.abs(null - found.values.ravel()).max() > 1e-3


def test_a_null_is_as_far_away_as_the_value() -> None:
    generator = torch.Generator().manual_seed(0)
    plainly, new = (torch.randn(3, 4, 5, dtype=torch.float64, generator=generator) for _ in range(2))
    for dims in ([2], [1, 2], []):
        moved = as_far(plainly, new, dims, generator) - plainly
        one, other = ((value**2).sum(dims) if dims else value.abs() for value in (moved, new - plainly))
        torch.testing.assert_close(one, other)
        assert not torch.allclose(moved.abs() if dims else moved, (new - plainly).abs() if dims else new - plainly)


def test_intervals_are_clear_of_0_where_all_pairs_agree() -> None:
    found = np.array([[1.0, -1.0], [1.1, 1.0], [0.9, 0.1]])
    assert paired(found).values["clear"] == 0.5


def test_pairs_that_do_not_fit_are_refused() -> None:
    subject = pellucid.load(plain.tiny("llama"))
    with pytest.raises(InputError, match="equally many tokens"):
        activation_patching(subject, PAIRS[0], target=1, others=[Pair([1, 2, 3], [1, 5, 3])])
    with pytest.raises(InputError, match="other_targets for 1"):
        activation_patching(subject, PAIRS[0], target=1, others=PAIRS[:1], other_targets=[1, 2])
