"""Value zeroing: how far a token's new vector turns when it gets nothing of the value of another."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch

from pellucid.core.axes import Site
from pellucid.core.metadata import method
from pellucid.core.params import PromptLike, TargetLike, Unit
from pellucid.core.results import Scores
from pellucid.engine.behind_attention import behind_attention
from pellucid.engine.planning import TOKENS_PER_BATCH, check_cancelled, in_batches
from pellucid.engine.question import Question, ask, read_position
from pellucid.engine.rollout import read_row, rolled
from pellucid.engine.transformed import AttentionBlock, attention_blocks, followed_stack
from pellucid.engine.variants import row, whole
from pellucid.models.edits import Edit
from pellucid.models.forward import forward
from pellucid.models.subject import Subject

Behind = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


@method(
    rows=("FAV-6",),
    paper="arXiv:2301.12971",
    takes="prompt",
    produces="scores",
    axes=("unit",),
    needs=("attention", "weights"),
    cost="(layers*tokens+3)*F",
)
def value_zeroing(
    subject: Subject, prompt: PromptLike, *, target: TargetLike = None, unit: Unit = "token",
    compare: Literal["block", "attention"] = "block",
) -> Scores:  # fmt: skip
    """Score each unit by how far zeroing its value turns the vectors of others, multiplied through the blocks.

    C_ij = 1 - cos(x_i, x_i without j), x_i what leaves the block and x_i without j the same with the value of token j
    set to zero in that block alone; rows scaled to sum 1; R = C^L ... C^1. Unsigned; all tokens sum to 1. Exact:
    zeroing takes alpha_ij v_j W_O from the attention output, so no attention is computed again, only the rest of the
    block for the pairs (i, j) that attention joins (a block that cannot be cut there, as in ALBERT, is run for every
    token). With compare="attention" vectors are compared behind attention, its residual and norm, before the
    feed-forward layer, at the price of a few forward passes in all. It does not depend on the target (Mohebbi et al.
    2023, arXiv:2301.12971).

    Args:
        subject: the model, from `pellucid.load`; for encoder-decoders the encoder is used, averaged over its rows.
        prompt: text, chat or token ids.
        target: only names the target in the result.
        unit: "token", "word", "sentence", "line", "message" or token ranges.
        compare: what leaves the "block", or its "attention".

    Returns:
        Scores [unit].
    """
    question = ask(subject, prompt, target=target, unit=unit)
    blocks = attention_blocks(question.subject, question.tokens)
    ways = _ways(question, blocks, compare)
    if ways is None:
        matrices = [_turned_by_edits(question, block, layer) for layer, block in enumerate(blocks)]
    else:
        matrices = [_turned(question, block, way, block is blocks[-1]) for block, way in zip(blocks, ways, strict=True)]
    values = read_row(question, rolled(matrices)[-1])
    return question.answer(values, "Value zeroing", unit="share", sign="larger means more of the token is used")


def _ways(question: Question, blocks: list[AttentionBlock], compare: str) -> list[Behind] | None:
    """Return, block by block, how compared vectors follow from attention outputs; None where only edits do."""
    if compare == "attention":
        return [block.stream for block in blocks]
    if blocks[0].parallel:  # attention does not reach the feed-forward layer of its own block
        return [_beside(block) for block in blocks]
    found = behind_attention(question.subject, question.tokens, blocks)
    return None if found is None else [*found]


def _beside(block: AttentionBlock) -> Behind:
    return lambda attended, at: block.stream(attended, at) + block.feed_forward[at]


def _turned(question: Question, block: AttentionBlock, behind: Behind, last: bool) -> torch.Tensor:
    """Return 1 - cosine [query, key] between vectors with and without the value of each key, for joined pairs."""
    turned = torch.zeros_like(block.pattern[0])
    clean = behind(block.attended, torch.arange(len(turned), device=turned.device))
    joined = block.pattern.abs().sum(0) > 0
    subject = question.subject
    if last and subject.kind != "encoder-decoder" and subject.head != "none":
        only = torch.zeros_like(joined)
        only[read_position(question)] = True  # of the last block, that row alone is read
        joined = joined & only
    for rows, vectors in block.vectors():
        query, key = joined[rows].nonzero(as_tuple=True)
        for some in torch.arange(len(query), device=query.device).split(TOKENS_PER_BATCH):
            check_cancelled()
            at = query[some] + rows.start
            without = behind(block.attended[at] - vectors[query[some], key[some]], at)
            turned[at, key[some]] = _turn(without, clean[at])
    return turned


def _turned_by_edits(question: Question, block: AttentionBlock, layer: int) -> torch.Tensor:
    """Return the same by zeroing the value of each token in a run of its own."""
    subject, tokens = question.subject, question.tokens
    stack = followed_stack(subject)
    site, value = (str(Site(stack, layer, part)) for part in ("resid_post", "attn.v"))

    def run(keys: list[int]) -> list[torch.Tensor]:
        edits = [(Edit(value, "zero", where={"position": key}),) for key in keys]
        rows = [row(subject, tokens, whole(tokens), (), edit) for edit in edits]
        output = forward(subject, rows, capture=[site])
        return [_turn(output.row(site, i).to(block.after), block.after) for i in range(len(keys))]

    with torch.no_grad():
        return torch.stack(in_batches(range(len(tokens)), [len(tokens)] * len(tokens), run), 1)


def _turn(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    # The cosines of what hardly turns differ from 1 in their last digits alone.
    return (1 - torch.cosine_similarity(a.double(), b.double(), dim=-1)).clamp(min=0).to(a.dtype)
