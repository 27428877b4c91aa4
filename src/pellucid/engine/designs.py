"""Which coalitions to score: small sizes all of them, the rest in random pairs of a coalition and its complement."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import Literal

import numpy as np
from scipy.special import comb, gammaln

from pellucid.core.errors import InputError
from pellucid.engine.coalitions import all_coalitions

Sizes = Literal["kernel", "uniform", "binomial"]
LEAST_PAIRS = 4


@dataclass(frozen=True)
class Design:
    """Coalitions `full`, each taken once, and `pairs` drawn at random: [full, players] and [pairs, 2, players].

    Every drawn coalition T has the chance exp(`log_chance[|T|]`). Together they stand for all coalitions: those of
    `full` for themselves, the pairs for the rest. `pairs` is empty where `full` holds everything.
    """

    full: np.ndarray
    pairs: np.ndarray
    log_chance: np.ndarray

    @property
    def exact(self) -> bool:
        """Return whether every coalition is in `full`."""
        return len(self.pairs) == 0


def log_mass(players: int, sizes: Sizes) -> np.ndarray:
    """Return the logarithm of the weight of one coalition of each size 0 ... players; -inf for the ends of "kernel".

    "kernel" is the Shapley kernel (n-1) / (C(n,t) t (n-t)); "uniform" gives every size between the ends the same
    weight, which is the leverage of a coalition; "binomial" gives every coalition the same.
    """
    size = np.arange(players + 1)
    if sizes == "binomial":
        return np.full(players + 1, -players * np.log(2.0))
    inside = (size > 0) & (size < players)
    with np.errstate(divide="ignore"):
        kernel = np.log((players - 1) / np.where(inside, size * (players - size), 1.0)) if sizes == "kernel" else 0.0
    return np.where(inside, kernel - log_count(players), -np.inf)


def design(players: int, samples: int, sizes: Sizes, rng: np.random.Generator) -> Design:
    """Choose at most `samples` coalitions, whose sizes follow a weight.

    No unit and all units are always there. From the outermost sizes inwards, sizes that would be drawn about as often
    as they have coalitions are taken whole, which removes their sampling error (Covert & Lee 2021, arXiv:2012.01536;
    Musco & Witter 2024, arXiv:2410.01917).

    Raises:
        InputError: too few samples for `LEAST_PAIRS` pairs beside the two ends.
    """
    if 2.0**players <= samples:
        return Design(all_coalitions(players), np.zeros((0, 2, players), dtype=bool), np.full(players + 1, -np.inf))
    if samples < 2 + 2 * LEAST_PAIRS:
        raise InputError(
            f"{samples} samples were asked for {players} units, but an estimate with an error bar needs "
            f"{2 + 2 * LEAST_PAIRS}; raise samples."
        )
    size = np.arange(players + 1)
    mass = np.exp(log_mass(players, sizes) + log_count(players))
    mass[[0, players]] = 0.0
    left, whole = samples - 2, [0, players]
    for small in range(1, players // 2 + 1):
        group = sorted({small, players - small})
        number = sum(float(comb(players, s)) for s in group)
        if left * mass[group].sum() / mass.sum() < number or left - number < 2 * LEAST_PAIRS:
            break
        left, whole = left - int(number), whole + group
        mass[group] = 0.0
    full = np.concatenate([_all_of_size(players, s) for s in sorted(whole)])
    drawn = rng.choice(size, size=left // 2, p=mass / mass.sum())
    rank = rng.random((len(drawn), players)).argsort(1).argsort(1)
    first = rank < drawn[:, None]
    with np.errstate(divide="ignore"):
        log_chance = np.log(mass / mass.sum()) - log_count(players)
    return Design(full, np.stack([first, ~first], axis=1), log_chance)


def log_count(players: int) -> np.ndarray:
    """Return the logarithm of the number of coalitions of each size 0 ... players: [players + 1]."""
    size = np.arange(players + 1)
    return gammaln(players + 1) - gammaln(size + 1) - gammaln(players - size + 1)


def _all_of_size(players: int, size: int) -> np.ndarray:
    if 2 * size > players:
        return ~_all_of_size(players, players - size)
    masks = np.zeros((int(comb(players, size, exact=True)), players), dtype=bool)
    chosen = np.array(list(combinations(range(players), size)), dtype=np.int64).reshape(len(masks), size)
    np.put_along_axis(masks, chosen, True, axis=1)
    return masks
