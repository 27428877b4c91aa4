"""Greedy generation on the plain engine, with edits held to their phase."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from pellucid.core.errors import CapabilityError, InputError
from pellucid.core.tokens import Tokens
from pellucid.engine.planning import check_cancelled
from pellucid.engine.variants import mask_position, row, whole
from pellucid.models.forward import forward

if TYPE_CHECKING:
    from pellucid.models.subject import Subject


def greedy(subject: Subject, tokens: Tokens, length: int) -> tuple[int, ...]:
    """Return the most likely continuation, token by token, at most `length` ids, ending before an end-of-text token.

    Edits of the subject act in their phase. Exact: every step is a full forward.

    Raises:
        CapabilityError: the subject does not generate.
        InputError: prompt and continuation exceed the model's limit.
    """
    if "generate" not in subject.capabilities:
        raise CapabilityError(
            f"{subject.name} does not generate text because it is a {subject.kind} with head {subject.head}; use a "
            "causal language model."
        )
    limit = subject.max_length
    start = len(tokens) if subject.kind == "decoder" else 1
    if limit is not None and start + length - 1 > limit:
        raise InputError(
            f"A prompt of {len(tokens)} tokens and {length} new ones exceed the model's limit of {limit}; shorten "
            "one of them."
        )
    found: list[int] = []
    token, ends = 0, end_ids(subject)
    for step in range(length):
        check_cancelled()
        logits = forward(subject, [row(subject, tokens, whole(tokens), tuple(found))]).logits[0]
        token = int(logits[start + step - 1].argmax())
        if token in ends:
            break
        found.append(token)
    return tuple(found) if found else (token,)


def end_ids(subject: Subject) -> set[int]:
    """Return the token ids that end a text."""
    config = getattr(subject.model, "generation_config", None)
    end = getattr(config, "eos_token_id", None)
    if end is None:
        end = getattr(subject.tokenizer, "eos_token_id", None)
    return set(end) if isinstance(end, (list, tuple)) else set() if end is None else {int(end)}


@torch.no_grad()
def next_token_distribution(subject: Subject, tokens: Tokens, top: int = 10) -> list[tuple[int, float]]:
    """Return the `top` most likely token ids (next, or at the mask) or class indices with their probabilities."""
    output = forward(subject, [row(subject, tokens, whole(tokens))])
    logits = output.logits[0]
    if logits.ndim == 2:
        logits = logits[
            len(tokens) - 1
            if subject.kind == "decoder"
            else 0
            if subject.kind == "encoder-decoder"
            else mask_position(subject, tokens)
        ]
    probabilities = logits.double().softmax(-1)
    best = probabilities.topk(min(top, len(probabilities)))
    return [(int(i), float(p)) for i, p in zip(best.indices, best.values, strict=True)]
