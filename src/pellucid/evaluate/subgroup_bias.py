"""Subgroup bias: whether a classifier tells toxic from harmless texts equally well where a group is mentioned."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from pellucid.core.errors import InputError
from pellucid.core.metadata import metric
from pellucid.core.results import Evidence
from pellucid.evaluate._ranking import area_under_roc


@metric(rows=("EVP-2",), paper="arXiv:2012.10289", takes="labels", produces="evidence", better="higher", chance=0.5)
def subgroup_bias(
    predictions: Sequence[float], labels: Sequence[int], subgroups: Sequence[Any], *, power: float = -5.0
) -> Evidence:
    """Return three areas under the ROC curve on texts that mention a group, averaged over groups.

    Subgroup: texts of the group alone. BPSN: harmless texts of the group against toxic others, low where harmless ones
    are called toxic. BNSP: toxic texts of the group against harmless others, low where toxic ones are missed. Groups
    are joined by the generalised mean with the power -5, which weighs the worst most (Borkan et al. 2019; in the
    HateXplain benchmark of Mathew et al. 2021, arXiv:2012.10289). The value is the least of the three. Higher is
    better, guessing is 0.5. Groups that lack a class are left out. Exact.

    Args:
        predictions: a number per text, higher meaning toxic.
        labels: 1 per toxic text, else 0.
        subgroups: for each text the names of the groups that it mentions.
        power: of the generalised mean.

    Returns:
        Evidence with the three areas and the value.

    Raises:
        InputError: lists of different lengths, or no group with both classes.
    """
    if not len(predictions) == len(labels) == len(subgroups):
        raise InputError(
            f"{len(predictions)} predictions, {len(labels)} labels and {len(subgroups)} subgroups were given; give one "
            "of each per text."
        )
    scores, toxic = np.asarray(predictions, dtype=np.float64), np.asarray(labels, dtype=bool)
    groups = sorted({name for names in subgroups for name in names})
    areas: dict[str, list[float]] = {"subgroup": [], "bpsn": [], "bnsp": []}
    for group in groups:
        inside = np.array([group in names for names in subgroups])
        parts = {"subgroup": inside, "bpsn": inside ^ toxic, "bnsp": inside == toxic}
        for name, part in parts.items():
            area = area_under_roc(toxic[part], scores[part]) if part.any() else float("nan")
            if not np.isnan(area):
                areas[name].append(area)
    if not all(areas.values()):
        raise InputError("No group is mentioned in both toxic and harmless texts; give more texts.")
    with np.errstate(divide="ignore"):
        means = {name: float(np.mean(np.array(found) ** power) ** (1 / power)) for name, found in areas.items()}
    worst = min(means.values())
    return Evidence(
        "subgroup bias",
        f"Over {len(groups)} groups, toxic texts stand above harmless ones with an area of {means['subgroup']:.2f} "
        f"inside them, {means['bpsn']:.2f} with their harmless and {means['bnsp']:.2f} with their toxic texts (1 is "
        "best, 0.5 chance).",
        {"value": worst, **means},
    )
