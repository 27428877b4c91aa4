"""Information-flow routes: importances against the formula written out, and the way down against a plain graph."""

from __future__ import annotations

import networkx
import numpy as np
import pytest
import torch

import pellucid
from pellucid.core.results import Graph
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


def edges_of(found: Graph) -> dict[tuple[str, str], float]:
    """The weight of every edge, by the names of its ends."""
    ends = zip(found.sources, found.targets, found.weights, strict=True)
    return {(found.nodes[a]["id"], found.nodes[b]["id"]): float(weight) for a, b, weight in ends}


def drawn(kept: np.ndarray) -> dict[tuple[str, str], float]:
    """The same from importances [part, layer, query, key], for blocks one behind the other."""
    expected: dict[tuple[str, str], float] = {}
    for layer, i in np.ndindex(kept.shape[1], kept.shape[2]):
        at = {name: f"blocks.{layer}.{name}[{i}]" for name in ("attn.out", "resid_mid", "mlp.out", "resid_post")}
        below = [f"blocks.{layer - 1}.resid_post[{j}]" if layer else f"embed[{j}]" for j in range(kept.shape[3])]
        for j, name in enumerate(below):
            expected[name, at["attn.out"]] = kept[0, layer, i, j]
        expected[at["attn.out"], at["resid_mid"]] = kept[0, layer, i].sum()
        expected[below[i], at["resid_mid"]] = kept[1, layer, i, i]
        expected[at["resid_mid"], at["mlp.out"]] = expected[at["mlp.out"], at["resid_post"]] = kept[2, layer, i, i]
        expected[at["resid_mid"], at["resid_post"]] = kept[3, layer, i, i]
    return {ends: weight for ends, weight in expected.items() if weight > 0}


@pytest.mark.parametrize("threshold", [0.0, 0.1, 0.3])
@pytest.mark.parametrize("name", NAMES)
def test_equals_importances_and_search_written_out(name: str, threshold: float) -> None:
    with torch.no_grad():
        edges = np.stack([importances(block) for block in plain_blocks(name)], 1)
    found = information_flow_routes(pellucid.load(plain.tiny(name)), plain.IDS, target=1, threshold=threshold)
    kept = reachable(edges, 0 if "bert" in name else 5, threshold)
    assert edges_of(found) == pytest.approx(drawn(kept), abs=1e-5)
    assert found.evidence[0].values["edges"] == np.count_nonzero(kept)
    assert len({node["id"] for node in found.nodes}) == len(found.nodes)
    # Bottom up, and every node but the one that is read leads somewhere.
    assert (found.sources < found.targets).all()
    assert set(range(len(found.nodes) - 1)) == set(found.sources.tolist())


def test_parallel_blocks_share_one_vector_among_all_edges() -> None:
    found = information_flow_routes(pellucid.load(plain.tiny("neox-parallel")), plain.IDS, target=1, threshold=0.0)
    edges = edges_of(found)
    assert not any("resid_mid" in end for ends in edges for end in ends)
    assert sum(weight for (_, end), weight in edges.items() if end == "blocks.1.resid_post[5]") == pytest.approx(1)
    assert not any(end.startswith("blocks.1.resid_post") and not end.endswith("[5]") for _, end in edges)
    into = {start for start, end in edges if ".mlp.out" in end}
    assert into
    assert all(start.startswith(("embed", "blocks.0.resid_post")) for start in into)


def test_names_tokens_and_the_stack() -> None:
    found = information_flow_routes(pellucid.load("zoo:tiny-lm"), "The capital of France is", threshold=0.1)
    assert found.tokens is not None
    assert found.nodes[-1]["position"] == len(found.tokens) - 1
    assert "is post" in found.nodes[-1]["label"]
    assert found.nodes[0]["site"] == "embed"
    of_t5 = information_flow_routes(pellucid.load(plain.tiny("t5")), plain.IDS, target=1, threshold=0.1)
    assert all(node["site"].startswith("encoder.") for node in of_t5.nodes)
