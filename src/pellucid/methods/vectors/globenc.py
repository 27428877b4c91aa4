"""GlobEnc: the length of each token's share of a whole encoder block, both norms and residuals included, rolled out."""

from __future__ import annotations

import torch

from pellucid.core.metadata import method
from pellucid.core.params import PromptLike, TargetLike, Unit
from pellucid.core.results import Scores
from pellucid.engine.question import ask
from pellucid.engine.rollout import read_row, rolled
from pellucid.engine.transformed import AttentionBlock, attention_blocks
from pellucid.models.subject import Subject


@method(
    rows=("FAV-3",),
    paper="arXiv:2205.03286",
    takes="prompt",
    produces="scores",
    axes=("unit",),
    needs=("attention", "weights"),
    cost="2*F",
)
def globenc(subject: Subject, prompt: PromptLike, *, target: TargetLike = None, unit: Unit = "token") -> Scores:
    """Score each unit by the length of its share of every block, multiplied through the blocks.

    N_ij = |LN2(LN1(alpha_ij f(x_j) + [i = j] x_i))|_2, the norms as linear maps at their own divisors (that of LN2
    knows the feed-forward layer, whose own output is left out; its residual is in); rows scaled to sum 1; R = N^L ...
    N^1. In pre-norm blocks no norm lies on this way. Unsigned; all tokens sum to 1. Exact for what it states; it does
    not depend on the target (Modarressi et al. 2022, arXiv:2205.03286).

    Args:
        subject: the model, from `pellucid.load`; for encoder-decoders the encoder's self-attention is used, averaged
            over its rows.
        prompt: text, chat or token ids.
        target: only names the target in the result.
        unit: "token", "word", "sentence", "line", "message" or token ranges.

    Returns:
        Scores [unit].
    """
    question = ask(subject, prompt, target=target, unit=unit)
    lengths = [_lengths(block) for block in attention_blocks(question.subject, question.tokens)]
    values = read_row(question, rolled(lengths)[-1])
    return question.answer(values, "GlobEnc", unit="share", sign="larger means more of the token reaches the output")


def _lengths(block: AttentionBlock) -> torch.Tensor:
    lengths = torch.zeros_like(block.pattern[0])
    for rows, shares in block.shares():
        behind = shares if block.last_norm is None else block.last_norm.rows(rows)(shares)
        lengths[rows] = behind.norm(dim=-1)
    return lengths
