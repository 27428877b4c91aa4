"""Information-flow routes: importances against the formula written out, and the way down against a plain graph."""

from __future__ import annotations

import networkx
import numpy as np
import pytest
import torch

import pellucid
from pellucid.methods.vectors.information_flow_routes import information_flow_routes
from tests import plain
from tests.engine.test_transformed import NAMES, PlainBlock, plain_blocks


def shares(parts: list[torch.Tensor], whole: torch.Tensor) -> np.ndarray:
    near = [max(0.0, float(whole.abs().sum() - (whole - part).abs().sum())) for part in parts]
    return np.array(near) / sum(near)


def importances(block: PlainBlock) -> np.ndarray:
    """[part, query, key], edge by edge."""
    found = np.zeros((4, 6, 6))
    vectors = block.vectors.permute(1, 2, 0, 3).reshape(6, 24, 32)
    parts = torch.cat([vectors, block.before[:, None]], 1)
    parts = parts if block.norm is None else block.norm(parts)
    for i in range(6):
        share = shares(list(parts[i]), block.middle[i])
        found[0, i] = share[:24].reshape(6, 4).sum(1)
        found[1, i, i] = share[24]
    pair = torch.stack([block.feed_forward, block.middle], 1)
    pair = pair if block.last is None else block.last(pair)
    for i in range(6):
        found[2, i, i], found[3, i, i] = shares(list(pair[i]), block.after[i])
    return found


def reachable(edges: np.ndarray, start: int, threshold: float) -> np.ndarray:
    """The edges on the way down from a position, found by a search in a graph."""
    graph = networkx.MultiDiGraph()
    parts, layers, length, _ = edges.shape
    for part, layer, i, j in np.ndindex(parts, layers, length, length):
        if edges[part, layer, i, j] >= threshold and edges[part, layer, i, j] > 0:
            ends = (("mid", layer, i), ("post", layer - 1, j)) if part < 2 else (("post", layer, i), ("mid", layer, i))
            graph.add_edge(*ends, place=(part, layer, i, j))
    graph.add_node(("post", layers - 1, start))
    seen = networkx.descendants(graph, ("post", layers - 1, start)) | {("post", layers - 1, start)}
    kept = np.zeros_like(edges)
    for source, _, data in graph.edges(data=True):
        if source in seen:
            kept[data["place"]] = edges[data["place"]]
    return kept


@pytest.mark.parametrize("threshold", [0.0, 0.1, 0.3])
@pytest.mark.parametrize("name", NAMES)
def test_equals_importances_and_search_written_out(name: str, threshold: float) -> None:
    with torch.no_grad():
        edges = np.stack([importances(block) for block in plain_blocks(name)], 1)
    found = information_flow_routes(pellucid.load(plain.tiny(name)), plain.IDS, target=1, threshold=threshold)
    expected = reachable(edges, 0 if "bert" in name else 5, threshold)
    np.testing.assert_allclose(found.values, expected, atol=1e-5)
    assert found.evidence[0].values["edges"] == np.count_nonzero(expected)


def test_parallel_blocks_share_one_vector_among_all_edges() -> None:
    found = information_flow_routes(pellucid.load(plain.tiny("neox-parallel")), plain.IDS, target=1, threshold=0.0)
    assert not found.values[3].any()
    into = found.values[:, -1, 5].sum()
    assert into == pytest.approx(1)
    assert not found.values[:, -1, :5].any()
