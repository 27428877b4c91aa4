"""Agreement of two explanations, by hand on four parts, and chance levels over all orders."""

from __future__ import annotations

from collections.abc import Callable
from itertools import permutations

import numpy as np
import pytest

from pellucid.core.errors import InputError
from pellucid.core.results import Evidence, Scores
from pellucid.core.tokens import Tokens
from pellucid.evaluate.feature_agreement import feature_agreement
from pellucid.evaluate.pairwise_rank_agreement import pairwise_rank_agreement
from pellucid.evaluate.rank_agreement import rank_agreement
from pellucid.evaluate.ranking_correlation import ranking_correlation
from pellucid.evaluate.sign_agreement import sign_agreement
from pellucid.evaluate.signed_rank_agreement import signed_rank_agreement
from pellucid.evaluate.top_k_jaccard import top_k_jaccard

ALL = (
    feature_agreement, sign_agreement, rank_agreement, signed_rank_agreement, top_k_jaccard, ranking_correlation,
    pairwise_rank_agreement,
)  # fmt: skip


def scored(*values: float) -> Scores:
    return Scores(values=np.array(values, dtype=float))


ONE, OTHER = scored(4, -3, 2, 1), scored(4, 2, -3, 1)  # by size 0 1 2 3 and 0 2 1 3


def value(metric: Callable[..., Evidence], first: Scores, second: Scores, **more: int) -> float:
    return metric(first, second, **more).values["value"]


def test_by_hand() -> None:
    assert value(feature_agreement, ONE, OTHER, top=2) == 1 / 2
    assert value(feature_agreement, ONE, OTHER, top=3) == 1
    assert value(sign_agreement, ONE, OTHER, top=3) == pytest.approx(1 / 3), "only the first has the same sign"
    assert value(rank_agreement, ONE, OTHER, top=3) == pytest.approx(1 / 3)
    assert value(rank_agreement, ONE, scored(-4, 3, 1, 2), top=3) == pytest.approx(2 / 3)
    assert value(signed_rank_agreement, ONE, scored(-4, -3, 1, 2), top=3) == pytest.approx(1 / 3)
    assert value(top_k_jaccard, ONE, OTHER, top=2) == pytest.approx(1 / 3)
    assert value(ranking_correlation, ONE, OTHER) == pytest.approx(1 - 6 * (0 + 4 + 4 + 0) / (4 * 15))
    assert value(pairwise_rank_agreement, ONE, OTHER) == pytest.approx(5 / 6), "1 and 2 are the other way round"
    assert value(pairwise_rank_agreement, ONE, scored(4, 2, 2, 1)) == pytest.approx(5.5 / 6)
    assert pairwise_rank_agreement(ONE, OTHER, parts=[1, 2]).values == {"value": 0, "pairs": 1}


@pytest.mark.parametrize("metric", ALL)
def test_an_explanation_agrees_with_itself(metric: Callable[..., Evidence]) -> None:
    assert value(metric, ONE, ONE) == pytest.approx(1)


@pytest.mark.parametrize("metric", ALL)
@pytest.mark.parametrize("numbers", [(4, -3, 2, 1), (-4, -3, 2, -1)])
def test_chance_is_the_mean_over_all_orders(metric: Callable[..., Evidence], numbers: tuple[int, ...]) -> None:
    found = [metric(ONE, scored(*order)) for order in permutations(numbers)]
    stated = found[0].values.get("chance", getattr(metric, "metadata").chance)  # noqa: B009 - set by the decorator
    assert np.mean([one.values["value"] for one in found]) == pytest.approx(stated)


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(InputError, match="same input and axes"):
        feature_agreement(ONE, scored(1, 2))
    with pytest.raises(InputError, match="not finite"):
        rank_agreement(ONE, scored(1, 2, 3, np.nan))
    texts = [Scores(values=np.ones(1), tokens=Tokens((i,), ("x",), (False,))) for i in (1, 2)]
    with pytest.raises(InputError, match="different prompts"):
        top_k_jaccard(*texts)
    with pytest.raises(InputError, match="no pair"):
        pairwise_rank_agreement(ONE, OTHER, parts=[1])
