"""MAP of rankings: whether the units of a changed input are ranked as those of the original."""

from __future__ import annotations

import numpy as np

from pellucid.core.errors import InputError
from pellucid.core.metadata import metric
from pellucid.core.params import Positive
from pellucid.core.results import Evidence, Scores


@metric(rows=("EVP-3",), paper="arXiv:2205.11097", takes="labels", produces="evidence", better="higher")
def ranking_map(scores: Scores, other: Scores, *, top: Positive | None = None) -> Evidence:
    """Return the mean average precision of the ranking of a changed input against that of the original.

    mean over i = 1 ... k of |first i of the original and first i of the changed input| / i, where units are the same
    when their texts are (Shen et al. 2022, arXiv:2205.11097); k is the length of the shorter ranking or `top`. Higher
    is better: a faithful explanation of a model that is not misled by the change stays the same. The chance level is
    exact: the mean over random rankings of both. Equal texts count as often as both rankings hold them.

    Args:
        scores: the explanation of the original.
        other: the explanation of the changed input.
        top: k; None compares the whole of the shorter ranking.

    Returns:
        Evidence with the mean average precision and its chance level.

    Raises:
        InputError: scores that are not one finite number per unit with a text.
    """
    ranked = [_ranked(one) for one in (scores, other)]
    count = min(len(ranked[0]), len(ranked[1]), top or len(ranked[0]))
    shares = [_shared(ranked[0][:i], ranked[1][:i]) / i for i in range(1, count + 1)]
    found, chance = float(np.mean(shares)), _chance(ranked[0], ranked[1], count)
    return Evidence(
        "MAP of rankings",
        f"The {count} highest units of both inputs agree with a mean average precision of {found:.2f} (1 is best, "
        f"{chance:.2f} chance).",
        {"value": found, "chance": chance},
    )


def _ranked(scores: Scores) -> list[str]:
    values = np.asarray(scores.values, dtype=np.float64)
    labels = scores.labels.get("unit")
    if labels is None:
        labels = () if scores.units is None else scores.units.labels
    if scores.axes != ("unit",) or not np.isfinite(values).all() or len(labels) != len(values):
        raise InputError(
            f"Scores with the axes {scores.axes} and {len(labels)} texts were given; rankings are compared by one "
            "finite score and one text per unit."
        )
    return [str(labels[i]).strip() for i in np.argsort(-values, kind="stable")]


def _shared(first: list[str], second: list[str]) -> int:
    return sum(min(first.count(text), second.count(text)) for text in set(first))


def _chance(first: list[str], second: list[str], count: int) -> float:
    """Return the mean over random orders: exact where texts do not repeat, else from 500 of them."""
    if len(set(first)) == len(first) and len(set(second)) == len(second):
        both = len(set(first) & set(second))
        return float(np.mean([i * both / (len(first) * len(second)) for i in range(1, count + 1)]))
    rng, found = np.random.default_rng(0), []
    for _ in range(500):
        orders = [[texts[i] for i in rng.permutation(len(texts))] for texts in (first, second)]
        found.append(np.mean([_shared(orders[0][:i], orders[1][:i]) / i for i in range(1, count + 1)]))
    return float(np.mean(found))
