"""Dependency trees out of a matrix of weights between words."""

from __future__ import annotations

import networkx as nx
import numpy as np


def spanning_tree(weights: np.ndarray) -> tuple[int, ...]:
    """Return the heads of the heaviest tree over n words, crossing arcs allowed; the root's head is -1.

    Args:
        weights: [n, n]; entry (d, h) is the weight of the arc from head h to dependent d.

    Exact (Chu-Liu/Edmonds, by networkx). Ties are broken by position.
    """
    size = len(weights)
    graph: nx.DiGraph = nx.DiGraph()
    graph.add_nodes_from(range(-1, size))
    # The root's arc is so light that a heaviest arborescence holds exactly one of them.
    light = -(2.0 * size + 2.0) * (float(np.abs(weights).max()) + 1.0)
    graph.add_weighted_edges_from((-1, d, light) for d in range(size))
    graph.add_weighted_edges_from((h, d, float(weights[d, h])) for d in range(size) for h in range(size) if d != h)
    best = nx.maximum_spanning_arborescence(graph)
    heads = {d: h for h, d in best.edges}
    return tuple(heads[d] for d in range(size))


def projective_tree(weights: np.ndarray) -> tuple[int, ...]:
    """Return the heads of the heaviest tree over n words whose arcs do not cross; the root's head is -1.

    Args:
        weights: [n, n]; entry (d, h) is the weight of the arc from head h to dependent d.

    Exact (Eisner 1996), O(n^3).
    """
    size = len(weights)
    # whole[side][i, j]: the best half-tree over i..j whose head is i (side 1) or j (side 0); open: with the arc i-j.
    whole = np.zeros((2, size, size))
    opened = np.zeros((2, size, size))
    whole_cut = np.zeros((2, size, size), dtype=int)
    open_cut = np.zeros((size, size), dtype=int)
    for width in range(1, size):
        for i in range(size - width):
            j = i + width
            inside = [whole[1, i, k] + whole[0, k + 1, j] for k in range(i, j)]
            open_cut[i, j] = i + int(np.argmax(inside))
            opened[0, i, j] = max(inside) + weights[i, j]
            opened[1, i, j] = max(inside) + weights[j, i]
            left = [whole[0, i, k] + opened[0, k, j] for k in range(i, j)]
            right = [opened[1, i, k] + whole[1, k, j] for k in range(i + 1, j + 1)]
            whole_cut[0, i, j], whole[0, i, j] = i + int(np.argmax(left)), max(left)
            whole_cut[1, i, j], whole[1, i, j] = i + 1 + int(np.argmax(right)), max(right)
    root = int(np.argmax([whole[0, 0, r] + whole[1, r, size - 1] for r in range(size)]))
    heads = [-1] * size
    waiting = [(False, 0, 0, root), (False, 1, root, size - 1)]
    while waiting:
        is_open, side, i, j = waiting.pop()
        if i == j:
            continue
        if is_open:
            heads[j if side else i] = i if side else j
            cut = int(open_cut[i, j])
            waiting += [(False, 1, i, cut), (False, 0, cut + 1, j)]
            continue
        cut = int(whole_cut[side, i, j])
        waiting += [(True, 1, i, cut), (False, 1, cut, j)] if side else [(False, 0, i, cut), (True, 0, cut, j)]
    return tuple(heads)


def depths(heads: tuple[int, ...] | list[int]) -> np.ndarray:
    """Return the depth of every word in its tree, the root (head -1) at 0.

    Raises:
        ValueError: the heads hold a cycle, no root, or a word outside the sentence.
    """
    found = np.full(len(heads), -1)
    for start in range(len(heads)):
        path, at = [start], heads[start]
        while at != -1 and len(path) <= len(heads):
            if not 0 <= at < len(heads):
                raise ValueError(f"word {start} has the head {heads[start]}")
            path.append(at)
            at = heads[at]
        if at != -1:
            raise ValueError(f"word {start} is on a cycle")
        found[start] = len(path) - 1
    return found
