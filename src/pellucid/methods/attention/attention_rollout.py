"""Attention rollout: attention patterns multiplied through the layers, with the residual stream as half of each."""

from __future__ import annotations

import numpy as np

from pellucid.core.metadata import method
from pellucid.core.params import PromptLike, TargetLike, Unit
from pellucid.core.results import Scores
from pellucid.engine.capture import capture
from pellucid.engine.question import ask, per_unit, read_position
from pellucid.models.layout import main_stack
from pellucid.models.subject import Subject


@method(
    rows=("ATT-8",),
    paper="arXiv:2005.00928",
    takes="prompt",
    produces="scores",
    axes=("unit",),
    needs=("attention",),
    cost="F",
)
def attention_rollout(
    subject: Subject, prompt: PromptLike, *, target: TargetLike = None, unit: Unit = "token"
) -> Scores:
    """Score each unit by how much of it reaches the output position through attention and residual connections.

    R = A^L ... A^1 with A^l = (mean over heads of attention + identity) / 2; the row of the position that is read.
    Unsigned, rows sum to 1. Exact for what it states,
    but it does not depend on the target and ignores values and feed-forward layers (Abnar & Zuidema 2020,
    arXiv:2005.00928).

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
    subject = question.subject
    stack = "encoder." if main_stack(subject.need_layout()) == "decoder" else ""
    patterns = capture(subject, question.tokens, [f"{stack}blocks.*.attn.pattern"])
    rollout = np.eye(len(question.tokens))
    for pattern in patterns.values():
        mean = pattern.double().mean(0).cpu().numpy()
        rollout = (0.5 * mean + 0.5 * np.eye(len(mean))) @ rollout
    if subject.kind == "encoder-decoder" or subject.head == "none":
        row = rollout.mean(0)
    else:
        row = rollout[read_position(question)]
    values = per_unit(row[:, None], question.units)
    return question.answer(
        values, "Attention rollout", unit="share", sign="larger means more of the token reaches the output"
    )
