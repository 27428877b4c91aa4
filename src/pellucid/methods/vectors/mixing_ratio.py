"""Mixing ratio: how much of a token's new vector comes from other tokens, and how much it keeps of itself."""

from __future__ import annotations

import torch

from pellucid.core.metadata import method
from pellucid.core.params import PromptLike, TargetLike
from pellucid.core.results import Scores
from pellucid.engine.question import ask
from pellucid.engine.transformed import AttentionBlock, attention_blocks
from pellucid.models.subject import Subject


@method(
    rows=("FAV-2",),
    paper="arXiv:2109.07152",
    takes="prompt",
    produces="scores",
    axes=("layer", "position"),
    needs=("attention", "weights"),
    cost="2*F",
)
def mixing_ratio(subject: Subject, prompt: PromptLike, *, target: TargetLike = None) -> Scores:
    """Score each token in each block by the share of its new vector that attention brings from other tokens.

    r_i = |y_i from context| / (|y_i from context| + |y_i from itself|), y_i = LN(sum_j alpha_ij f(x_j) + x_i) split
    into j other than i and the rest (attention to itself and the residual), the norm taken at its own divisor; biases
    belong to neither. From 0 (keeps itself) to 1. In pre-norm blocks no norm follows the sum. Exact for what it states;
    it does not depend on the target, and the feed-forward layer is left out (Kobayashi et al. 2021, arXiv:2109.07152).

    Args:
        subject: the model, from `pellucid.load`; for encoder-decoders the encoder's self-attention is used.
        prompt: text, chat or token ids.
        target: only names the target in the result.

    Returns:
        Scores [layer, position].
    """
    question = ask(subject, prompt, target=target)
    ratios = [_ratio(block) for block in attention_blocks(question.subject, question.tokens)]
    return Scores(
        title="Mixing ratio",
        values=torch.stack(ratios).double().cpu().numpy(),
        axes=("layer", "position"),
        unit="share",
        sign="larger means that more comes from other tokens",
        tokens=question.tokens,
        target=question.readout.description,
    )


def _ratio(block: AttentionBlock) -> torch.Tensor:
    whole = slice(0, len(block.before))
    own = torch.einsum("hq,qhd->qd", block.pattern.diagonal(dim1=1, dim2=2), block.values)
    context = block.added(torch.einsum("hqk,khd->qd", block.pattern, block.values) - own, whole)
    kept = block.added(own, whole) + block.before
    if block.middle_norm is not None:
        context, kept = block.middle_norm(context), block.middle_norm(kept)
    length, other = context.norm(dim=-1), kept.norm(dim=-1)
    return length / (length + other)
