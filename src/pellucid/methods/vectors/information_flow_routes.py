"""Information-flow routes: the edges between residual streams that matter, followed down from the prediction."""

from __future__ import annotations

import numpy as np
import torch

from pellucid.core.metadata import method
from pellucid.core.params import Fraction, PromptLike, TargetLike
from pellucid.core.results import Evidence, Scores
from pellucid.engine.question import Question, ask, read_position
from pellucid.engine.transformed import AttentionBlock, attention_blocks, proximity
from pellucid.models.subject import Subject

PARTS = ("attention", "residual around attention", "feed-forward", "residual around feed-forward")


@method(
    rows=("N-AT7",),
    paper="arXiv:2403.00824",
    takes="prompt",
    produces="scores",
    axes=("part", "layer", "query", "key"),
    needs=("attention", "weights"),
    cost="2*F",
)
def information_flow_routes(
    subject: Subject, prompt: PromptLike, *, target: TargetLike = None, threshold: Fraction = 0.04
) -> Scores:
    """Score each edge between token streams by its share of the vector it leads to, and keep those below the output.

    e = max(0, |y|_1 - |y - z|_1), scaled to sum 1 over the edges into y: behind attention the z are the residual and
    every head's vector of every token (then summed over heads), behind the feed-forward layer that layer and the
    residual around it. Starting from the position that is read, edges of at least `threshold` are followed down; all
    others are 0. Unsigned. Exact for what it states: the z and biases sum to y, the norms of post-norm blocks taken at
    their divisors. It depends on the target only by the position (Ferrando & Voita 2024, arXiv:2403.00824).

    Args:
        subject: the model, from `pellucid.load`; for encoder-decoders the encoder is followed from all positions.
        prompt: text, chat or token ids.
        target: only names the target in the result.
        threshold: smallest importance of an edge that is kept; 0 keeps all that lie below the output.

    Returns:
        Scores [part, layer, query, key]: "attention" from key to query, the other parts on the diagonal.
    """
    question = ask(subject, prompt, target=target)
    blocks = attention_blocks(question.subject, question.tokens)
    edges = torch.stack([_edges(block) for block in blocks], 1)
    kept = _followed(edges, _start(question), threshold)
    return Scores(
        title="Information-flow routes",
        values=(edges * kept).double().cpu().numpy(),
        axes=("part", "layer", "query", "key"),
        labels={"part": PARTS},
        unit="share",
        sign="larger means that more of the stream comes along this edge",
        tokens=question.tokens,
        target=question.readout.description,
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
        edges[0, rows] = found[:, : length * heads].unflatten(1, (length, heads)).sum(-1)
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


def _size(edges: torch.Tensor, kept: torch.Tensor, threshold: float) -> Evidence:
    count, everything = int(kept.sum()), int((edges > 0).sum())
    bottom = np.flatnonzero(kept[:2, 0].any(0).any(0).cpu().numpy())
    return Evidence(
        "size of the routes",
        f"{count} of {everything} edges lie on routes of importance {threshold:g} or more; they start at "
        f"{len(bottom)} of {edges.shape[-1]} tokens.",
        {"edges": float(count), "all edges": float(everything), "tokens": float(len(bottom))},
    )
