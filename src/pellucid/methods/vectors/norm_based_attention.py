"""Norm-based attention: attention weights together with the length of the vectors they weigh."""

from __future__ import annotations

from typing import Literal

import torch

from pellucid.core.metadata import method
from pellucid.core.params import PromptLike, TargetLike
from pellucid.core.results import Scores
from pellucid.engine.question import ask
from pellucid.engine.transformed import AttentionBlock, attention_blocks
from pellucid.models.subject import Subject


@method(
    rows=("FAV-1",),
    paper="arXiv:2004.10102",
    takes="prompt",
    produces="scores",
    axes=("layer", "query", "key"),
    needs=("attention", "weights"),
    cost="2*F",
)
def norm_based_attention(
    subject: Subject, prompt: PromptLike, *, target: TargetLike = None,
    heads: Literal["together", "each"] = "together", include: Literal["attention", "residual", "norm"] = "attention",
) -> Scores:  # fmt: skip
    """Score each pair of tokens by the length of the vector that one adds to the other in a block.

    |alpha_ij f(x_j)|, f(x) = (x W_V + b_V) W_O, Euclidean; "together" sums the heads' vectors before the length is
    taken. include="residual" adds x_i on the diagonal, and "norm" puts that through the norm behind the sum as well
    (post-norm blocks; in others nothing changes). Unsigned. Exact for what it states: the vectors and the output bias
    sum to the block's attention output (Kobayashi et al. 2020, arXiv:2004.10102; 2021, arXiv:2109.07152). It does not
    depend on the target.

    Args:
        subject: the model, from `pellucid.load`; for encoder-decoders the encoder's self-attention is used.
        prompt: text, chat or token ids.
        target: only names the target in the result.
        heads: "together", or "each" for one matrix per head (of attention alone).
        include: what counts besides attention.

    Returns:
        Scores [layer, query, key], or [layer, head, query, key].
    """
    question = ask(subject, prompt, target=target)
    blocks = attention_blocks(question.subject, question.tokens)
    if heads == "each":
        # A weight times a vector is as long as the weight times the vector's length.
        found = [block.pattern.abs() * block.values.norm(dim=-1).T[:, None] for block in blocks]
    else:
        found = [_lengths(block, include) for block in blocks]
    return Scores(
        title="Norm-based attention" if include == "attention" else f"Norm-based attention with {include}",
        values=torch.stack(found).double().cpu().numpy(),
        axes=("layer", "head", "query", "key") if heads == "each" else ("layer", "query", "key"),
        unit="length",
        sign="larger means that the query gets more from the key",
        tokens=question.tokens,
        target=question.readout.description,
    )


def _lengths(block: AttentionBlock, include: str) -> torch.Tensor:
    lengths = torch.zeros_like(block.pattern[0])
    parts = block.vectors() if include == "attention" else block.shares(normed=include == "norm")
    for rows, vectors in parts:
        lengths[rows] = vectors.norm(dim=-1)
    return lengths
