"""What the deletion metrics share: units removed in the order of their scores, and the same done in random orders.

Every coalition is scored through the engine's store, so that what a method has scored is not run again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from pellucid.core.errors import InputError
from pellucid.core.results import Evidence, Scores
from pellucid.engine.game import Game, play

if TYPE_CHECKING:
    from pellucid.core.params import PromptLike, Replacement, TargetLike
    from pellucid.models.subject import Subject

SHARES = (0.01, 0.05, 0.1, 0.2, 0.5)


def judged(
    subject: Subject, prompt: PromptLike, scores: Scores, target: TargetLike, contrast: int | str | None,
    replacement: Replacement | None,
) -> Game:  # fmt: skip
    """Return the game of a prompt whose players are the units that `scores` are given for.

    Raises:
        InputError: scores of another prompt, or not one finite number per unit.
        TargetError: a target with a score for each of several tokens.
    """
    if scores.axes != ("unit",) or scores.units is None or not np.isfinite(scores.values).all():
        raise InputError(
            f"Scores with the axes {scores.axes} were given, but a deletion metric judges one finite score per unit; "
            "take one target, or sum over targets."
        )
    game = play(subject, prompt, target, contrast, scores.units.spans, replacement)
    if scores.tokens is not None and scores.tokens.ids != game.question.tokens.ids:
        raise InputError("The scores belong to another prompt; give the prompt that was explained.")
    if game.question.readout.size != 1:
        raise InputError("A deletion metric reads one number; give a target without `each`.")
    return game


def first(order: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Return which units are among the first 0 < k <= n of an order, for each count: [counts, units] booleans."""
    place = np.empty(len(order), dtype=int)
    place[order] = np.arange(len(order))
    return place[None] < np.asarray(counts)[:, None]


def counts_of(shares: tuple[float, ...], units: int) -> np.ndarray:
    """Return how many units shares stand for, rounded up: [shares]."""
    return np.ceil(np.array(shares) * units - 1e-9).astype(int)


def against_chance(
    name: str, scores: Scores, worth: Callable[[list[np.ndarray]], np.ndarray], lower: bool, orders: int, seed: int
) -> Evidence:
    """Return a metric of a ranking beside the same metric of random ones.

    Args:
        name: of the metric.
        scores: the ranking, the highest first; equal scores in the order of the prompt.
        worth: returns the metric of several orders, [orders]; all are scored at once.
        lower: whether lower is better.
        orders: number of random orders.
        seed: of the random orders.
    """
    rng, ranked = np.random.default_rng(seed), np.argsort(-scores.values, kind="stable")
    found = worth([ranked, *(rng.permutation(len(ranked)) for _ in range(orders))])
    own, chance = float(found[0]), found[1:]
    direction = "lower" if lower else "higher"
    if not orders:
        return Evidence(name, f"{name.capitalize()} {own:.3g}; {direction} is better.", {"value": own})
    beaten = float((chance > own).mean() if lower else (chance < own).mean())
    return Evidence(
        name,
        f"{name.capitalize()} {own:.3g}; {direction} is better. Of {orders} random orders, with mean "
        f"{chance.mean():.3g}, {100 * beaten:.0f} % do worse.",
        {"value": own, "random_mean": float(chance.mean()), "beaten": beaten, "orders": float(orders)},
        ok=True if beaten >= 0.95 else False if beaten < 0.5 else None,
    )
