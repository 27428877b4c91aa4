"""Feed-forward maps: the token-to-token map of a block behind its feed-forward layer, not only behind its attention."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import torch

from pellucid.core.metadata import method
from pellucid.core.params import PromptLike, TargetLike
from pellucid.core.results import Evidence, Scores
from pellucid.engine.feed_forward import FeedForward, feed_forward_layers
from pellucid.engine.question import ask
from pellucid.engine.transformed import AttentionBlock, attention_blocks, followed_stack
from pellucid.models.subject import Subject


@method(
    rows=("TXB-6",),
    paper="arXiv:2302.00456",
    takes="prompt",
    produces="scores",
    axes=("layer", "query", "key"),
    needs=("attention", "weights"),
    cost="3*F",
)
def feed_forward_maps(
    subject: Subject, prompt: PromptLike, *, target: TargetLike = None,
    include: Literal["attention", "feed_forward", "block"] = "block",
) -> Scores:  # fmt: skip
    """Score each pair of tokens by the length of the vector that one adds to the other up to a point of a block.

    "attention": |sum_h alpha_ij f(x_j) + [i = j] x_i|, behind the norm of post-norm blocks. These vectors then go
    through the feed-forward layer, whose activation is shared by integrated gradients from 0 along the straight way
    (a gated unit with its gate): "feed_forward" is the length of what the layer makes of token j for i, "block" that
    with the residual around it and the last norm, norms at their divisors. Unsigned; Euclidean. Conserves: the
    vectors and those of the biases, which belong to no token, sum to the block's output; that a token's vector is its
    effect is an approximation. It does not depend on the target (Kobayashi et al. 2023, arXiv:2302.00456; gates are
    ours).

    Args:
        subject: the model, from `pellucid.load`; for encoder-decoders the encoder is used.
        prompt: text, chat or token ids.
        target: only names the target in the result.
        include: how far into the block.

    Returns:
        Scores [layer, query, key]; how the feed-forward layer changes the map is in the evidence.

    Raises:
        SiteError: a model whose experts are computed jointly.
        CapabilityError: neurons that are no activation, or gated activation, of linear maps.
    """
    question = ask(subject, prompt, target=target)
    blocks = attention_blocks(question.subject, question.tokens)
    streams = [block.before if block.parallel else block.middle for block in blocks]
    layers = feed_forward_layers(question.subject, question.tokens, followed_stack(subject), streams)
    with question.subject.lock:
        maps = [_lengths(block, layer) for block, layer in zip(blocks, layers, strict=True)]
    which = ("attention", "feed_forward", "block").index(include)
    return Scores(
        title="Feed-forward maps" if include == "block" else f"Feed-forward maps: {include}",
        values=torch.stack([lengths[which] for lengths, _, _ in maps]).double().cpu().numpy(),
        axes=("layer", "query", "key"),
        unit="length",
        sign="larger means that the query gets more from the key",
        tokens=question.tokens,
        target=question.readout.description,
    ).with_evidence(_books(maps), _changed([lengths for lengths, _, _ in maps]))


Maps = tuple[torch.Tensor, float, float]


@torch.no_grad()
def _lengths(block: AttentionBlock, layer: FeedForward) -> Maps:
    """Return the maps [3, query, key], by how much the vectors miss the block's output, and the share of the biases."""
    lengths = block.pattern.new_zeros(3, *block.pattern.shape[1:])
    gap, size, alone = 0.0, 0.0, 0.0
    for rows, middle, update, after in _vectors(block, layer):
        for number, vectors in enumerate((middle, update, after)):
            lengths[number, rows] = vectors[:, :-1].norm(dim=-1)
        gap = max(gap, float((after.sum(1) - block.after[rows]).abs().max()))
        size = max(size, float(block.after[rows].abs().max()))
        alone += float((after[:, -1].norm(dim=-1) / after.norm(dim=-1).sum(1)).sum())
    return lengths, gap / max(size, 1e-30), alone / len(block.after)


def _vectors(
    block: AttentionBlock, layer: FeedForward
) -> Iterator[tuple[slice, torch.Tensor, torch.Tensor, torch.Tensor]]:
    """Yield some queries at a time with every token's vectors behind attention, feed-forward layer and block.

    [queries, keys + 1, dimension] each; the last vector is that of the biases.
    """
    for rows, shares in block.shares():
        middle = torch.cat([shares, (block.middle[rows] - shares.sum(1))[:, None]], 1)
        read = middle
        if block.parallel:  # the layer reads what enters the block, where tokens are still apart
            read = torch.zeros_like(middle)
            index = torch.arange(rows.start, rows.stop, device=read.device)
            read[index - rows.start, index] = block.before[rows]
        update = layer.shares(read, rows)
        after = middle + update
        if block.last_norm is not None:
            after = block.last_norm.rows(rows)(after)
            after[:, -1] += block.last_norm.bias
        yield rows, middle, update, after


def _books(maps: list[Maps]) -> Evidence:
    gap, alone = max(gap for _, gap, _ in maps), sum(share for _, _, share in maps) / len(maps)
    return Evidence(
        "completeness",
        f"The tokens' vectors and those of the biases sum to the blocks' outputs within {gap:.2g} of them; biases have "
        f"{100 * alone:.0f} % of the length.",
        {"residual": gap, "biases": alone},
        ok=bool(gap < 0.02),
    )


def _changed(maps: list[torch.Tensor]) -> Evidence:
    """Return how far the feed-forward layers move each row of the maps, as shares of its length."""
    moved = []
    for lengths in maps:
        before, _, after = lengths / lengths.sum(-1, keepdim=True).clamp(min=1e-30)
        moved.append(float((before - after).abs().sum(-1).mean()) / 2)
    layer = max(range(len(moved)), key=moved.__getitem__)
    return Evidence(
        "change of the map",
        f"The feed-forward layers move {100 * sum(moved) / len(moved):.1f} % of a token's map to other tokens, at most "
        f"{100 * moved[layer]:.1f} % in layer {layer}.",
        {"mean": sum(moved) / len(moved), "largest": moved[layer], "layer": float(layer)},
    )
