"""Players in a hierarchy: groups within groups that join a coalition as wholes, and the Owen values this gives."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import factorial

import numpy as np


@dataclass(frozen=True)
class Node:
    """A group: the players in it, and the groups it consists of (none for a single player)."""

    members: tuple[int, ...]
    parts: tuple[Node, ...] = ()


def halves(members: Sequence[int]) -> Node:
    """Return the balanced binary tree over players in their order."""
    if len(members) == 1:
        return Node(tuple(members))
    middle = (len(members) + 1) // 2
    return Node(tuple(members), (halves(members[:middle]), halves(members[middle:])))


def nested(members: Sequence[int], levels: Sequence[Sequence[int]]) -> Node:
    """Return the tree in which each level, coarse to fine, groups players with the same number.

    Args:
        members: the players.
        levels: for each level the number of the group that each player of the whole game is in.
    """
    if len(members) == 1:
        return Node(tuple(members))
    if not levels:
        return Node(tuple(members), tuple(Node((m,)) for m in members))
    groups: dict[int, list[int]] = {}
    for member in members:
        groups.setdefault(levels[0][member], []).append(member)
    if len(groups) == 1:
        return nested(members, levels[1:])
    return Node(tuple(members), tuple(nested(group, levels[1:]) for group in groups.values()))


def orders(tree: Node, rng: np.random.Generator) -> Iterator[list[np.ndarray]]:
    """Yield without end a random order in which every group stays together, with its reverse."""
    while True:
        order = np.array(_order(tree, rng))
        yield [order, order[::-1]]


def _order(node: Node, rng: np.random.Generator) -> list[int]:
    if not node.parts:
        return list(node.members)
    return [player for k in rng.permutation(len(node.parts)) for player in _order(node.parts[k], rng)]


def size(node: Node, around: int = 1) -> int:
    """Return how many pairs of coalitions the exact values compare: over players, 2^(number of siblings) per level."""
    if not node.parts:
        return around
    return sum(size(part, around * 2 ** (len(node.parts) - 1)) for part in node.parts)


def exact_weights(tree: Node) -> tuple[np.ndarray, np.ndarray]:
    """Return every coalition that the Owen values of a hierarchy need, and how much its worth counts for each player.

    A player joins after some of its siblings, which join after some of their group's siblings, and so on; all orders
    of siblings are equally likely (Owen 1977; Winter 1989 for several levels).

    Returns:
        coalitions [n, players] booleans and weights [n, players]: values = weights.T @ v. Exact.
    """
    players = len(tree.members)
    found: dict[frozenset[int], np.ndarray] = {}
    for player, before, chance in _contexts(tree, frozenset(), 1.0):
        for coalition, sign in ((before | {player}, 1.0), (before, -1.0)):
            found.setdefault(coalition, np.zeros(players))[player] += sign * chance
    masks = np.zeros((len(found), players), dtype=bool)
    for row, coalition in enumerate(found):
        masks[row, list(coalition)] = True
    return masks, np.stack(list(found.values()))


def _contexts(node: Node, before: frozenset[int], chance: float) -> Iterator[tuple[int, frozenset[int], float]]:
    """Yield each player with the coalitions it may join and their chances."""
    if not node.parts:
        yield node.members[0], before, chance
    count = len(node.parts)
    for part in node.parts:
        others = [other for other in node.parts if other is not part]
        for joined in range(count):
            weight = chance * factorial(joined) * factorial(count - joined - 1) / factorial(count)
            for chosen in combinations(others, joined):
                yield from _contexts(part, before.union(*(other.members for other in chosen)), weight)
