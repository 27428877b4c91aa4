"""Information-flow routes: the edges between residual streams that matter, followed down from the prediction."""

from __future__ import annotations

import networkx as nx
import numpy as np
import torch

from pellucid.core.axes import Site
from pellucid.core.metadata import method
from pellucid.core.params import Fraction, PromptLike, TargetLike
from pellucid.core.results import Evidence, Graph
from pellucid.engine.question import Question, ask, read_position
from pellucid.engine.transformed import AttentionBlock, attention_blocks, followed_stack, proximity
from pellucid.models.subject import Subject

ATTENTION, BESIDE_ATTENTION, FEED_FORWARD, BESIDE_FEED_FORWARD = range(4)  # what an edge goes through
SITES = {"embed": "embed", "attn.out": "attn", "resid_mid": "mid", "mlp.out": "mlp", "resid_post": "post"}
Node = tuple[int, str, int]  # layer, site, position


@method(
    rows=("N-AT7",),
    paper="arXiv:2403.00824",
    takes="prompt",
    produces="graph",
    needs=("attention", "weights"),
    cost="2*F",
)
def information_flow_routes(
    subject: Subject, prompt: PromptLike, *, target: TargetLike = None, threshold: Fraction = 0.04
) -> Graph:
    """Draw the edges between token streams that matter, followed down from the position that is read.

    e = max(0, |y|_1 - |y - z|_1), scaled to sum 1 over the edges into y: behind attention the z are the residual and
    every head's vector of every token (then summed over heads), behind the feed-forward layer that layer and the
    residual around it. Starting from the position that is read, edges of at least `threshold` are followed down.
    Unsigned. Exact for what it states: the z and biases sum to y, the norms of post-norm blocks taken at their
    divisors. It depends on the target only by the position (Ferrando & Voita 2024, arXiv:2403.00824).

    Args:
        subject: the model, from `pellucid.load`; for encoder-decoders the encoder is followed from all positions.
        prompt: text, chat or token ids.
        target: is only checked.
        threshold: smallest importance of an edge that is kept; 0 keeps all that lie below the output.

    Returns:
        A graph with a node for each token, block and site (`embed`, `attn.out`, `resid_mid`, `mlp.out`, `resid_post`)
        on a route, bottom up. An edge into a layer's output has the importance e of what comes along it, and the edge
        from there into the stream that of all of it together.
    """
    question = ask(subject, prompt, target=target)
    blocks = attention_blocks(question.subject, question.tokens)
    edges = torch.stack([_edges(block) for block in blocks], 1)
    kept = _followed(edges, _start(question), threshold)
    graph = _graph((edges * kept).double().cpu().numpy(), parallel=blocks[0].parallel)
    nodes = sorted(graph, key=lambda node: (node[0], [*SITES].index(node[1]), node[2]))
    index = {node: i for i, node in enumerate(nodes)}
    ends = np.array([(index[a], index[b]) for a, b in graph.edges], dtype=np.int64).reshape(-1, 2)
    return Graph(
        title="Information-flow routes",
        nodes=tuple(_node(question, *node) for node in nodes),
        sources=ends[:, 0],
        targets=ends[:, 1],
        weights=np.array([weight for _, _, weight in graph.edges(data="weight")], dtype=np.float64),
        unit="share",
        tokens=question.tokens,
        evidence=(_size(edges, kept, threshold),),
    )


def _edges(block: AttentionBlock) -> torch.Tensor:
    """Return the importance of every edge of a block: [part, query, key]."""
    heads, length, _ = block.pattern.shape
    edges = block.pattern.new_zeros(4, length, length)
    for rows, vectors in block.vectors(by_head=True):
        beside = [block.before, block.feed_forward] if block.parallel else [block.before]
        parts = torch.cat([block.added(vectors.flatten(1, 2), rows), *(v[rows, None] for v in beside)], 1)
        if block.middle_norm is not None:
            parts = block.middle_norm.rows(rows)(parts)
        found = proximity(parts, (block.after if block.parallel else block.middle)[rows])
        edges[ATTENTION, rows] = found[:, : length * heads].unflatten(1, (length, heads)).sum(-1)
        for part in range(len(beside)):
            edges[part + 1].diagonal()[rows] = found[:, length * heads + part]
    if not block.parallel:
        parts = torch.stack([block.feed_forward, block.middle], 1)
        parts = parts if block.last_norm is None else block.last_norm(parts)
        found = proximity(parts, block.after)
        edges[2].diagonal().copy_(found[:, 0])
        edges[3].diagonal().copy_(found[:, 1])
    return edges


def _start(question: Question) -> torch.Tensor:
    """Return which positions [position] the routes start from."""
    start = torch.zeros(len(question.tokens), dtype=torch.bool)
    subject = question.subject
    everywhere = subject.kind == "encoder-decoder" or subject.head == "none"
    start[... if everywhere else read_position(question)] = True
    return start


def _followed(edges: torch.Tensor, start: torch.Tensor, threshold: float) -> torch.Tensor:
    """Return which edges [part, layer, query, key] lie on a way down from `start` along edges that matter."""
    kept = (edges >= threshold) & (edges > 0)
    reached = start.to(edges.device)
    for layer in reversed(range(edges.shape[1])):
        kept[2:, layer] &= reached[:, None]
        # In parallel blocks attention and feed-forward layer lead to the same vector, and no edge lies between them.
        parallel = not bool(edges[3, layer].any())
        middle = reached if parallel else kept[2:, layer].any(0).any(0)
        kept[:2, layer] &= middle[:, None]
        below = kept[:3, layer] if parallel else kept[:2, layer]
        reached = below.any(0).any(0)
    return kept


def _graph(edges: np.ndarray, *, parallel: bool) -> nx.DiGraph[Node]:
    """Return the routes as a graph of (layer, site, position), from edges [part, layer, query, key]; 0 is no edge."""
    graph: nx.DiGraph[Node] = nx.DiGraph()
    for part, layer, query, key in np.argwhere(edges > 0).tolist():
        weight = float(edges[part, layer, query, key])
        below: Node = (layer - 1, "resid_post", key) if layer else (-1, "embed", key)
        middle: Node = (layer, "resid_mid", query)
        above: Node = (layer, "resid_post", query)
        if parallel:
            middle = below if part == FEED_FORWARD else above
        if part in (BESIDE_ATTENTION, BESIDE_FEED_FORWARD):
            graph.add_edge(*((below, middle) if part == BESIDE_ATTENTION else (middle, above)), weight=weight)
            continue
        start, site, end = (below, "attn.out", middle) if part == ATTENTION else (middle, "mlp.out", above)
        output: Node = (layer, site, query)
        graph.add_edge(start, output, weight=weight)
        before = graph.edges[output, end]["weight"] if graph.has_edge(output, end) else 0.0
        graph.add_edge(output, end, weight=before + weight)
    return graph


def _node(question: Question, layer: int, site: str, position: int) -> dict[str, str | int]:
    """Return what a graph says about a node."""
    name = str(Site(followed_stack(question.subject), layer if layer >= 0 else None, site))
    label = f"{question.tokens.pieces[position]} {SITES[site]}" + (f" {layer}" if layer >= 0 else "")
    return {"id": f"{name}[{position}]", "label": label, "site": name, "position": position}


def _size(edges: torch.Tensor, kept: torch.Tensor, threshold: float) -> Evidence:
    count, everything = int(kept.sum()), int((edges > 0).sum())
    bottom = np.flatnonzero(kept[:2, 0].any(0).any(0).cpu().numpy())
    return Evidence(
        "size of the routes",
        f"{count} of {everything} edges lie on routes of importance {threshold:g} or more; they start at "
        f"{len(bottom)} of {edges.shape[-1]} tokens.",
        {"edges": float(count), "all edges": float(everything), "tokens": float(len(bottom))},
    )
