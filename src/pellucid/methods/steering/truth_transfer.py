"""Transfer of directions: a probe learned on one set of statements, tested on every other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

from pellucid.core.errors import InputError
from pellucid.core.metadata import method
from pellucid.core.params import Fraction, NonNegativeFloat, SiteName
from pellucid.core.results import Evidence, Scores
from pellucid.engine.directions import activations, area_under_roc, held_out
from pellucid.engine.mass_means import mass_mean_probe
from pellucid.models.subject import Subject


@method(
    rows=("REP-2",),
    paper="arXiv:2310.06824",
    takes="dataset",
    produces="scores",
    axes=("group", "part"),
    needs=("activations",),
    cost="examples*F",
)
def truth_transfer(
    subject: Subject, sets: Mapping[str, Sequence[Any]], *, layer: int = -1, site: SiteName = "resid_post",
    position: int | str = -1, probe: Literal["mass_mean", "difference"] = "mass_mean", centred: bool = True,
    shrinkage: NonNegativeFloat = 0.01, test_share: Fraction = 0.25, seed: int = 0,
) -> Scores:  # fmt: skip
    """Test a probe learned on each set of labelled statements on every set: rows learn, columns test.

    Each value is the area under the ROC curve on statements held out: 0.5 is guessing, below it the direction points
    the wrong way there. A direction that stands for truth transfers to other subjects and to negated statements (Marks
    & Tegmark 2023, arXiv:2310.06824). Statements are read once; standard errors are those of the area (Hanley & McNeil
    1982).

    Args:
        subject: the model, from `pellucid.load`.
        sets: for each name the items (statement, label), label 1 for true.
        layer: the block that is read.
        site: a part of the residual stream.
        position: where to read: an index, negative from the end, or "mean".
        probe: "mass_mean", with the inverse covariance, or "difference" of the means alone.
        centred: take each set's own mean away first, as the paper does where sets differ in form.
        shrinkage: of the covariance.
        test_share: share of each set that only tests.
        seed: of the split.

    Returns:
        Scores [group, part]: learned on the group, tested on the part.

    Raises:
        InputError: a set that lacks one of the labels.
        SiteError: a site or layer that the model lacks.
    """
    names, learned, tested = list(sets), [], []
    for name, items in sets.items():
        rows, labels = _read(subject, name, items, site, layer, position)
        held = held_out(labels, test_share, seed)
        held = held if held.any() else np.ones(len(held), dtype=bool)
        used = ~held if not held.all() else held
        rows = rows - rows[used].mean(0) if centred else rows
        learned.append((rows[used], labels[used]))
        tested.append((rows[held], labels[held]))
    values, errors = np.zeros((len(names), len(names))), np.zeros((len(names), len(names)))
    for i, (rows, labels) in enumerate(learned):
        one, none = rows[labels == 1], rows[labels == 0]
        weights = mass_mean_probe(one, none, shrinkage)[0] if probe == "mass_mean" else one.mean(0) - none.mean(0)
        for j, (others, known) in enumerate(tested):
            values[i, j] = area_under_roc(known, others @ weights)
            errors[i, j] = _area_error(values[i, j], int(known.sum()), int((1 - known).sum()))
    own, away = np.diag(values), values[~np.eye(len(names), dtype=bool)]
    return Scores(
        title=f"Transfer of {'mass-mean probes' if probe == 'mass_mean' else 'mean differences'} at layer {layer}",
        values=values,
        axes=("group", "part"),
        labels={"group": tuple(names), "part": tuple(names)},
        unit="area under the ROC curve",
        sign="0.5 is guessing, 1 is perfect, 0 is the wrong way round",
        std_error=errors,
        evidence=(_summary(own, away, [len(labels) for _, labels in tested]),),
    )


def _read(
    subject: Subject, name: str, items: Sequence[Any], site: str, layer: int, position: Any
) -> tuple[np.ndarray, np.ndarray]:
    """Return the activations [item, dimension] and labels of a set."""
    labels = np.array([int(label) for _, label in items])
    if sorted(set(labels.tolist())) != [0, 1]:
        raise InputError(f"The set {name!r} has the labels {sorted(set(labels.tolist()))}; give items of both 0, 1.")
    read = activations(subject, [text for text, _ in items], site, layers=[layer], position=position)
    return read.values[0], labels


def _area_error(area: float, positives: int, negatives: int) -> float:
    """Return the standard error of an area under the ROC curve."""
    first, second = area / (2 - area), 2 * area**2 / (1 + area)
    spread = area * (1 - area) + (positives - 1) * (first - area**2) + (negatives - 1) * (second - area**2)
    return float(np.sqrt(max(spread, 0.0) / (positives * negatives)))


def _summary(own: np.ndarray, away: np.ndarray, counts: list[int]) -> Evidence:
    elsewhere = float(away.mean()) if len(away) else float("nan")
    return Evidence(
        "transfer between sets",
        f"A probe reaches {own.mean():.3f} on statements held out of its own set and {elsewhere:.3f} on other sets "
        f"(guessing 0.5; {sum(counts)} statements tested; {int((away > 0.5).sum())} of {len(away)} transfers are above "
        "guessing).",
        {"own": float(own.mean()), "elsewhere": elsewhere, "above": float((away > 0.5).sum())},
    )
