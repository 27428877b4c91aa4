"""A graph of what is added to the stream at one position, as it grows, every vector read as words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import networkx as nx
import numpy as np
import torch

from pellucid.core.axes import Site
from pellucid.core.results import Evidence, Graph
from pellucid.engine.capture import capture
from pellucid.engine.frozen_norms import frozen_norm
from pellucid.engine.head_weights import neuron_weights, norm_before
from pellucid.engine.question import Question
from pellucid.engine.targets import name_of
from pellucid.engine.transformed import AttentionBlock
from pellucid.models.layout import place


@dataclass(eq=False)
class VocabularyPicture:
    """The graph as it grows: nodes with words, edges with shares, and how far sums are from their parts."""

    question: Question
    at: int
    outputs: torch.Tensor
    words: int
    nodes: nx.DiGraph[str] = field(default_factory=nx.DiGraph)
    gap: float = 0.0

    def node(self, name: str, label: str, vector: torch.Tensor) -> str:
        """Add a node with the words and the target's rank that its vector stands for."""
        logits = self.outputs @ vector.to(self.outputs)
        said = [name_of(self.question.subject, int(i)) for i in logits.topk(self.words).indices]
        rank = int((logits > logits[self.question.readout.parts[0].ids[0]]).sum())
        self.nodes.add_node(name, label=f"{label}: {' '.join(said)}", words=" ".join(said), rank=rank)
        return name

    def edges(self, names: Sequence[str], parts: torch.Tensor, whole: torch.Tensor, end: str) -> None:
        """Add edges from the first parts [parts, dimension], those with names, to their sum."""
        size = (whole @ whole).clamp(min=1e-30)
        self.gap = max(self.gap, float((parts.sum(0) - whole).norm() / size.sqrt()))
        for name, share in zip(names, (parts @ whole / size).tolist(), strict=False):
            self.nodes.add_edge(name, end, weight=share)

    def norm(self, layer: int, part: str, stream: torch.Tensor, below: str) -> str:
        """Add what a norm makes of the stream, up to its divisor."""
        gain, centred = norm_before(self.question.subject, f"blocks.{layer}.{part}")
        vector = (stream - stream.mean() if centred else stream) * gain.to(stream)
        name = self.node(f"blocks.{layer}.{part.split('.')[0]}.norm", f"norm {layer}", vector)
        self.nodes.add_edge(below, name, weight=1.0)
        return name

    def attend(self, layer: int, block: AttentionBlock, heads: int, sources: int) -> None:
        """Add the attention of a layer: tokens -> heads -> attention."""
        at = slice(self.at, self.at + 1)
        below = self.norm(layer, "attn.q", block.before[self.at], f"blocks.{layer}.resid_pre")
        vectors = torch.einsum("hk,khd->khd", block.pattern[:, self.at], block.values)
        vectors = block.added(vectors.flatten(0, 1)[None], at)[0].view_as(vectors)
        whole, by_head = block.update[self.at], vectors.sum(0)
        out = self.node(f"blocks.{layer}.attn.out", f"attention {layer}", whole)
        order = by_head.norm(dim=-1).topk(min(heads, len(by_head))).indices.tolist()
        names = [self.node(f"blocks.{layer}.attn.{h}", f"head {layer}.{h}", by_head[h]) for h in order]
        rest = (whole - by_head.sum(0))[None]  # biases
        others = [h for h in range(len(by_head)) if h not in order]
        self.edges(names, torch.cat([by_head[order], by_head[others], rest]), whole, out)
        for head, name in zip(order, names, strict=True):
            keys = vectors[:, head].norm(dim=-1).topk(min(sources, len(vectors))).indices.tolist()
            read = [below if key == self.at else self._source(layer, key, block) for key in keys]
            left = [key for key in range(len(vectors)) if key not in keys]
            self.edges(read, vectors[keys + left, head], by_head[head], name)

    def _source(self, layer: int, key: int, block: AttentionBlock) -> str:
        piece = self.question.tokens.pieces[key]
        return self.node(f"blocks.{layer}.resid_pre[{key}]", f"{piece} {layer}", block.before[key])

    def feed(self, layer: int, block: AttentionBlock, active: torch.Tensor | None, neurons: int) -> None:
        """Add the feed-forward part of a layer and the streams around: neurons -> layer -> stream."""
        below, added = f"blocks.{layer}.resid_pre", block.feed_forward[self.at]
        parts = [block.before[self.at], block.update[self.at]]
        names = [below, f"blocks.{layer}.attn.out"]
        stream, above = block.before[self.at], f"blocks.{layer + 1}.resid_pre"
        if not block.parallel:
            stream = block.middle[self.at]
            below = self.node(f"blocks.{layer}.resid_mid", f"middle {layer}", stream)
            self.edges(names, torch.stack(parts), stream, below)
            parts, names = [stream], [below]
        out = self.node(f"blocks.{layer}.mlp.out", f"feed-forward {layer}", added)
        if active is None:
            self.nodes.add_edge(below, out, weight=1.0)
        else:
            self._neurons(layer, active, added, self.norm(layer, "mlp.up", stream, below), out, neurons)
        self.node(above, f"stream {layer + 1}", block.after[self.at])
        self.edges([*names, out], torch.stack([*parts, added]), block.after[self.at], above)

    def _neurons(self, layer: int, active: torch.Tensor, whole: torch.Tensor, below: str, out: str, count: int) -> None:
        subject = self.question.subject
        layout = subject.need_layout()
        weights = neuron_weights(subject, layer).to(whole)
        written = layout.stacks[""].residual_scale * active[self.at].to(whole)[:, None] * weights
        if "mlp.out_raw" in layout.stacks[""].taps:
            site = f"blocks.{layer}.mlp.out_raw"
            raw = capture(subject, self.question.tokens, [site])[site].to(whole)
            with subject.lock:
                norm = frozen_norm(place(subject.model, layout, Site("", layer, "mlp.out")).module, raw)
            written = norm.rows(slice(self.at, self.at + 1))(written[None])[0]
        order = written.norm(dim=-1).topk(min(count, len(written))).indices.tolist()
        names = [self.node(f"blocks.{layer}.mlp.{n}", f"neuron {layer}.{n}", written[n]) for n in order]
        for name in names:
            self.nodes.add_edge(below, name, weight=1.0)
        others = written.sum(0) - written[order].sum(0)
        self.edges(names, torch.stack([*written[order], others, whole - written.sum(0)]), whole, out)

    def graph(self) -> Graph:
        """Return the picture as a result."""
        index = {name: i for i, name in enumerate(self.nodes)}
        ends = np.array([(index[a], index[b]) for a, b in self.nodes.edges], dtype=np.int64).reshape(-1, 2)
        answer = min(int(data["rank"]) for _, data in self.nodes.nodes(data=True))
        nodes: list[dict[str, Any]] = [{"id": name, **data} for name, data in self.nodes.nodes(data=True)]
        return Graph(
            title="Vocabulary flow graph",
            nodes=tuple(nodes),
            sources=ends[:, 0],
            targets=ends[:, 1],
            weights=np.array([weight for _, _, weight in self.nodes.edges(data="weight")], dtype=np.float64),
            unit="share of the sum",
            tokens=self.question.tokens,
            evidence=(
                Evidence(
                    "sums of vectors",
                    f"The parts of every sum, drawn or not, add up to it within {self.gap:.2g} of its length; the "
                    f"target's best rank at any node is {answer}.",
                    {"residual": self.gap, "best_rank": float(answer)},
                    ok=bool(self.gap < 0.02),
                ),
            ),
        )
