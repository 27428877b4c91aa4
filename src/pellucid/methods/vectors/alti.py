"""ALTI: contributions of tokens to tokens by how near each transformed vector comes to the block's sum, rolled out."""

from __future__ import annotations

from pellucid.core.metadata import method
from pellucid.core.params import PromptLike, TargetLike, Unit
from pellucid.core.results import Scores
from pellucid.engine.question import ask
from pellucid.engine.rollout import read_row, rolled
from pellucid.engine.transformed import attention_blocks, contributions
from pellucid.models.subject import Subject


@method(
    rows=("FAV-4",),
    paper="arXiv:2203.04212",
    takes="prompt",
    produces="scores",
    axes=("unit",),
    needs=("attention", "weights"),
    cost="2*F",
)
def alti(subject: Subject, prompt: PromptLike, *, target: TargetLike = None, unit: Unit = "token") -> Scores:
    """Score each unit by its contribution to the position that is read, through the mixing of all blocks.

    c_ij = max(0, |y_i|_1 - |y_i - T_i(x_j)|_1), rows scaled to sum 1, with y_i = sum_j T_i(x_j) + biases the stream
    behind attention: T_i(x_j) is j's transformed vector, for j = i with the residual, behind the norm of post-norm
    blocks. R = C^L ... C^1. Unsigned; all tokens sum to 1. Exact for what it states, but it does not depend on the
    target and leaves feed-forward layers out (Ferrando et al. 2022, arXiv:2203.04212).

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
    matrices = [contributions(block) for block in attention_blocks(question.subject, question.tokens)]
    values = read_row(question, rolled(matrices)[-1])
    return question.answer(values, "ALTI", unit="share", sign="larger means more of the token reaches the output")
