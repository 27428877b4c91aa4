"""The deletion and insertion check: does removing what is called important hurt more than removing at random?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from pellucid.core.params import Replacement
from pellucid.core.results import Evidence
from pellucid.engine.question import Question

MOST_POINTS = 20
MOST_ORDERS = 10
GOOD_ORDERS = 8
LEAST_ORDERS = 4
GOOD_POINTS = 6
LEAST_POINTS = 4


@dataclass(frozen=True)
class Plan:
    """How large a check is: points on the curve, random orders, and whether insertion is run besides deletion."""

    points: int
    orders: int
    insertion: bool

    def rows(self, rankings: int) -> int:
        """Return the rows that are run: every curve of one kind shares its two ends."""
        return (2 + max(self.points - 2, 0) * (rankings + self.orders)) * (2 if self.insertion else 1)


def plan(units: int, rankings: int, rows: float) -> Plan | None:
    """Return the largest check that fits into a number of rows, or None where even the smallest does not."""
    points = min(units + 1, MOST_POINTS)
    # Few random orders make a band so wide that even the best ranking falls inside it, so orders come before points.
    for fewest in (GOOD_ORDERS, LEAST_ORDERS):
        for insertion in (True, False):
            for size in range(points, (min(points, GOOD_POINTS) if insertion else LEAST_POINTS) - 1, -1):
                for orders in range(MOST_ORDERS, fewest - 1, -1):
                    found = Plan(size, orders, insertion)
                    if size >= LEAST_POINTS and found.rows(rankings) <= rows:
                        return found
    return None


def deletion_check(
    question: Question, rankings: Mapping[str, np.ndarray], replacement: Replacement, size: Plan, seed: int = 0
) -> dict[str, tuple[Evidence, ...]]:
    """Return deletion (and insertion) evidence for each ranking, against the same random orders.

    Units are removed from the highest score down, and the target is read at evenly spaced shares; the area under that
    curve, as a share of the way from the whole input to nothing, is compared with random orders. `random_low` and
    `random_high` bound where 95 % of random orders fall (t prediction interval). Removing units also leaves the
    training distribution, so this is evidence about the model on changed inputs, not proof.

    Args:
        question: the prompt and readout.
        rankings: scores per unit, by method name.
        replacement: how units are removed.
        size: points and orders, from `plan`.
        seed: of the random orders.
    """
    rng = np.random.default_rng(seed)
    units = len(question.units)
    orders = {name: np.argsort(-scores, kind="stable") for name, scores in rankings.items()}
    chance = [rng.permutation(units) for _ in range(size.orders)]
    removed = np.unique(np.round(np.linspace(0, units, size.points)).astype(int))
    found: dict[str, list[Evidence]] = {name: [] for name in orders}
    for kind in ("deletion", "insertion") if size.insertion else ("deletion",):
        masks = [mask for order in (*orders.values(), *chance) for mask in _masks(order, removed, kind)]
        curves = question.score(np.stack(masks), replacement).sum(1).reshape(-1, len(removed))
        for name, curve in zip(orders, curves, strict=False):
            found[name].append(_evidence(kind, removed / units, curve, curves[len(orders) :]))
    return {name: tuple(evidence) for name, evidence in found.items()}


def _masks(order: np.ndarray, removed: np.ndarray, kind: str) -> list[np.ndarray]:
    masks = []
    for count in removed:
        mask = np.full(len(order), kind == "deletion")
        mask[order[:count]] = kind == "insertion"
        masks.append(mask)
    return masks


def _evidence(kind: str, share: np.ndarray, curve: np.ndarray, random: np.ndarray) -> Evidence:
    area = float(np.trapezoid(curve, share))
    areas = np.trapezoid(random, share, axis=1)
    middle, spread, count = float(areas.mean()), float(areas.std(ddof=1)), len(areas)
    reach = float(stats.t.ppf(0.975, count - 1)) * spread * (1 + 1 / count) ** 0.5
    low, high = middle - reach, middle + reach
    beaten = float((areas > area).mean() if kind == "deletion" else (areas < area).mean())
    better = area < low if kind == "deletion" else area > high
    verb = "Removing" if kind == "deletion" else "Adding"
    effect = "lowers" if kind == "deletion" else "raises"
    judgement = (
        "clearly faster than"
        if better
        else "no faster than most of"
        if beaten < 0.5
        else "faster than most of, but within the spread of,"
    )
    return Evidence(
        kind,
        f"{verb} the highest-scored units first {effect} the target {judgement} {count} random orders "
        f"(area {area:.3g}; random {middle:.3g}, 95 % within {low:.3g} to {high:.3g}).",
        {
            "area": area,
            "random_mean": middle,
            "random_low": low,
            "random_high": high,
            "beaten": beaten,
            "orders": float(count),
        },
        {
            "x": _floats(share),
            "method": _floats(curve),
            "random": _floats(random.mean(0)),
            "random_low": _floats(random.min(0)),
            "random_high": _floats(random.max(0)),
        },
        ok=True if better else False if beaten < 0.5 else None,
    )


def _floats(values: Sequence[float] | np.ndarray) -> tuple[float, ...]:
    return tuple(float(v) for v in values)
