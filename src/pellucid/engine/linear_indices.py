"""Indices of a game as sums over coalitions, the form in which they are estimated from a sample of coalitions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.special import gammaln

from pellucid.engine.designs import log_count, log_mass
from pellucid.engine.games import interactions, sets_up_to

Kind = Literal["SII", "STII", "BII"]
PairKind = Literal["k-SII", "STII", "FSII"]


@dataclass(frozen=True, eq=False)
class LinearIndex:
    """An index with several entries (one per player, or per set of players) of games that it is linear in.

    `counts` maps coalitions [n, players] and the logarithm of their chances [n] to how much the worth of each counts in
    each entry, over its chance: [n, entries]. `of_sets` maps sets [sets, players] to the index of their unanimity
    games: [sets, entries]. `kernel` is the weight of coalitions in the regression that the index belongs to.
    """

    counts: Callable[[np.ndarray, np.ndarray], np.ndarray]
    of_sets: Callable[[np.ndarray], np.ndarray]
    kernel: Literal["kernel", "binomial"] = "kernel"


def index_of(kind: Kind, wanted: np.ndarray) -> LinearIndex:
    """Return SII (of single players: the Shapley value), BII (Banzhaf) or top-order STII of wanted sets."""
    order = int(wanted.sum(1).max())
    return LinearIndex(
        lambda masks, log_chance: coefficients(kind, masks, wanted, log_chance),
        lambda sets: interactions(sets, np.eye(len(sets)), wanted, kind, order).T,
        "binomial" if kind == "BII" else "kernel",
    )


def index_of_pairs(kind: PairKind, players: int) -> LinearIndex:
    """Return an interaction index of order 2, with an entry for each player and then for each pair."""
    wanted = sets_up_to(players, 2)
    single, pair = wanted[:players], wanted[players:]

    def of_sets(sets: np.ndarray) -> np.ndarray:
        return interactions(sets, np.eye(len(sets)), wanted, kind, 2).T

    def shapley(masks: np.ndarray, log_chance: np.ndarray) -> np.ndarray:
        both = coefficients("SII", masks, pair, log_chance)
        return np.concatenate([coefficients("SII", masks, single, log_chance) - both @ pair / 2, both], axis=1)

    def taylor(masks: np.ndarray, log_chance: np.ndarray) -> np.ndarray:
        alone = (masks[:, None] == single).all(2).astype(np.float64) - (masks.sum(1) == 0)[:, None]
        return np.concatenate(
            [alone * np.exp(-log_chance)[:, None], coefficients("STII", masks, pair, log_chance)], axis=1
        )

    forms = {"k-SII": shapley, "STII": taylor}
    return LinearIndex(forms[kind] if kind in forms else _faithful(wanted), of_sets)


def _faithful(wanted: np.ndarray) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    """Return the coefficients of FSII: the solution of its regression, whose matrix depends on sizes alone."""
    players = wanted.shape[1]
    log_kernel = log_mass(players, "kernel")
    # The kernel's weight of all coalitions between the ends that hold a given set of u players, for u = 0 ... n.
    inside = np.array(
        [
            sum(np.exp(log_kernel[t] + log_count(players - u)[t - u]) for t in range(max(u, 1), players))
            for u in range(players + 1)
        ]
    )
    union = (wanted[:, None] | wanted[None]).sum(2)
    inverse = np.linalg.pinv(inside[union], hermitian=True)
    ones = inverse.sum(1)
    last = ones / ones.sum()
    project = inverse - np.outer(last, ones)
    nothing = -(project @ inside[wanted.sum(1)] + last)

    def counts(masks: np.ndarray, log_chance: np.ndarray) -> np.ndarray:
        held = (masks.astype(np.int64) @ wanted.T.astype(np.int64) == wanted.sum(1)).astype(np.float64)
        sizes = masks.sum(1)
        result = np.exp(log_kernel[sizes] - log_chance)[:, None] * (held @ project)
        result[sizes == players] = last
        result[sizes == 0] = nothing
        return result

    return counts


def coefficients(kind: Kind, masks: np.ndarray, wanted: np.ndarray, log_chance: np.ndarray) -> np.ndarray:
    """Return by how much each coalition's worth counts in an index of each wanted set, over the chance to draw it.

    An index of S is a sum over coalitions T of v(T) c_S(T), c_S(T) = (-1)^(|S| - |S and T|) m(|T without S|), with m
    from the index: SII (for one player: the Shapley value), BII (the Banzhaf value) or STII (for |S| = its order).

    Args:
        kind: the index.
        masks: coalitions, [coalitions, players] booleans.
        wanted: sets, [wanted, players] booleans, none empty.
        log_chance: logarithm of the chance of each coalition; zeros give c itself.

    Returns:
        [coalitions, wanted].
    """
    players = masks.shape[1]
    sizes, both = wanted.sum(1)[None], masks.astype(np.int64) @ wanted.T.astype(np.int64)
    apart = masks.sum(1)[:, None] - both
    if kind == "SII":
        size = gammaln(players - apart - sizes + 1) + gammaln(apart + 1) - gammaln(players - sizes + 2)
    elif kind == "BII":
        size = np.broadcast_to(-(players - sizes) * np.log(2.0), both.shape)
    else:
        log_choices = gammaln(players) - gammaln(apart + 1) - gammaln(players - apart)
        size = np.log(sizes / players) - log_choices
    result: np.ndarray = np.where((sizes - both) % 2 == 0, 1.0, -1.0) * np.exp(size - log_chance[:, None])
    return result
