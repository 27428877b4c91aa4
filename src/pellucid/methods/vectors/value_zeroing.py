"""Value zeroing: how far a token's new vector turns when it gets nothing of the value of another."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Literal

import torch

from pellucid.core.axes import Site
from pellucid.core.metadata import method
from pellucid.core.params import PromptLike, TargetLike, Unit
from pellucid.core.results import Scores
from pellucid.engine.behind_attention import BehindAttention, behind_attention
from pellucid.engine.entrance import entrance
from pellucid.engine.planning import TOKENS_PER_BATCH, check_cancelled, in_batches
from pellucid.engine.question import Question, ask, per_unit, read_position
from pellucid.engine.rollout import read_row, rolled
from pellucid.engine.transformed import AttentionBlock, attention_blocks, followed_stack
from pellucid.engine.variants import row, whole
from pellucid.models.edits import Edit
from pellucid.models.forward import forward
from pellucid.models.kernels import session
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
    block for the pairs (i, j) that attention joins, on long prompts without a product of its own for the linear layers
    that it begins with. A block that cannot be cut behind attention, as in ALBERT, is run for every token.
    With compare="attention" vectors are compared behind attention, its residual and norm, before the feed-forward
    layer, at the price of a few forward passes in all. It does not depend on which token the target is, only on where
    it stands: a continuation with `each` is read at every position in one go, and what its own earlier tokens get is
    left out (Mohebbi et al. 2023, arXiv:2301.12971).

    Args:
        subject: the model, from `pellucid.load`; for encoder-decoders the encoder is used, averaged over its rows.
        prompt: text, chat or token ids.
        target: names the target in the result; a continuation with `each` has a column for each of its tokens.
        unit: "token", "word", "sentence", "line", "message" or token ranges.
        compare: what leaves the "block", or its "attention".

    Returns:
        Scores [unit], or [unit, target] for a target with `each`.
    """
    question, read = _with_continuation(ask(subject, prompt, target=target, unit=unit))
    blocks = attention_blocks(question.subject, question.tokens)
    ways = _ways(question, blocks, compare)
    size = len(question.tokens)
    if ways is None:
        matrices = [_turned_by_edits(question, block, layer) for layer, block in enumerate(blocks)]
    else:
        with session(question.subject, size * size // 2):
            both = zip(blocks, ways, strict=True)
            matrices = [_turned(block, way, read if block is blocks[-1] else []) for block, way in both]
    total = rolled(matrices)[-1]
    values = per_unit(total[read].T.double().cpu().numpy(), question.units) if read else read_row(question, total)
    return question.answer(values, "Value zeroing", unit="share", sign="larger means more of the token is used")


def _with_continuation(question: Question) -> tuple[Question, list[int]]:
    """Return the question, the continuation behind its prompt where every token of it asks, and the rows to read.

    There are no rows where all are read: in the encoder of an encoder-decoder and in a model without a head.
    """
    subject, readout = question.subject, question.readout
    if subject.kind == "encoder-decoder" or subject.head == "none":
        return question, []
    first = read_position(question)
    if not readout.each or readout.kind != "next":
        return question, [first]
    tokens = subject.encode([*question.tokens.ids, *readout.forced[0]])
    return replace(question, tokens=tokens), list(range(first, first + readout.size))


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


def _turned(block: AttentionBlock, behind: Behind, rows: list[int]) -> torch.Tensor:
    """Return 1 - cosine [query, key] between vectors with and without the value of each key, for joined pairs.

    Where `rows` are given no other query is computed: of the last block, they alone are read.
    """
    turned = torch.zeros_like(block.pattern[0])
    clean = behind(block.attended, torch.arange(len(turned), device=turned.device))
    joined = block.pattern.abs().sum(0) > 0
    if rows:
        only = torch.zeros_like(joined)
        only[rows] = True
        joined = joined & only
    key, query = joined.T.nonzero(as_tuple=True)
    ahead = entrance(behind, len(key)) if isinstance(behind, BehindAttention) else None
    for some in torch.arange(len(key), device=key.device).split(TOKENS_PER_BATCH):
        check_cancelled()
        at, of = query[some], key[some]
        without = behind(block.attended[at] - block.pairs(at, of), at) if ahead is None else ahead.without(at, of)
        turned[at, of] = _turn(without, clean[at])
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
