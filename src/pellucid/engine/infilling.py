"""Words that a language model would put in the place of a token: what replaces a removed one plausibly."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from pellucid.core.errors import CapabilityError, InputError
from pellucid.core.tokens import Tokens, Units
from pellucid.engine.planning import in_batches
from pellucid.engine.variants import remove
from pellucid.models.batch import Row
from pellucid.models.forward import forward

if TYPE_CHECKING:
    from pellucid.models.subject import Subject


def filler_for(subject: Subject, filler: Subject | None) -> Subject:
    """Return the language model that fills: the given one, or the subject itself.

    Raises:
        CapabilityError: it is neither a masked nor a causal language model.
        InputError: its token ids are not those of the subject.
    """
    chosen = subject if filler is None else filler
    if (chosen.kind, chosen.head) not in (("encoder", "masked-lm"), ("decoder", "causal-lm")):
        raise CapabilityError(
            f"Filling in words needs a masked or causal language model, but {chosen.name} is a {chosen.kind} with the "
            f"head {chosen.head}; pass filler=pellucid.load(...) of one with the same tokenizer."
        )
    if chosen is not subject and not same_ids(subject, chosen):
        raise InputError(
            f"{chosen.name} cannot fill in words for {subject.name}, because their token ids differ; pass a language "
            "model with the same tokenizer."
        )
    if chosen.head == "masked-lm" and _mask_id(chosen) is None:
        raise InputError(
            f"{chosen.name} was loaded without a mask token, so it cannot fill in; load its tokenizer too."
        )
    return chosen


def proposals(filler: Subject, tokens: Tokens, positions: Sequence[int]) -> torch.Tensor:
    """Return the probability of every token at each of some positions, given the others: [positions, vocabulary].

    A masked language model masks that position alone and sees both sides; a causal one sees what stands to the left
    (at the very start, its start token). Special tokens are as likely as the model says. Exact.
    """
    masked = filler.head == "masked-lm"
    mask = _mask_id(filler)
    rows = []
    for p in positions:
        ids = tokens.ids[:p] or _start(filler)
        if masked and mask is not None:
            ids = (*tokens.ids[:p], mask, *tokens.ids[p + 1 :])
        rows.append((Row(ids, segment=tuple(tokens.segment[: len(ids)])), p if masked else len(ids) - 1))

    def run(batch: list[tuple[Row, int]]) -> list[torch.Tensor]:
        wanted = torch.tensor([[place] for _, place in batch])
        output = forward(filler, [row for row, _ in batch], wanted=wanted)
        return list(output.logits[:, 0].double().softmax(-1).cpu())

    with torch.no_grad():
        return torch.stack(in_batches(rows, [len(row.ids) for row, _ in rows], run))


def _start(filler: Subject) -> tuple[int, ...]:
    """Return what stays of a text when all of it is deleted: the start token."""
    one = Tokens((0,), ("",), (False,))
    return remove(filler, one, Units("token", ((0, 1),)), [False], "delete").ids


def _mask_id(filler: Subject) -> int | None:
    found = getattr(filler.tokenizer, "mask_token_id", None)
    return found if isinstance(found, int) else None


def same_ids(subject: Subject, filler: Subject) -> bool:
    """Return whether token ids mean the same to two models: equal sizes, and equal vocabularies where known."""
    if subject.vocabulary != filler.vocabulary:
        return False
    if subject.tokenizer is None or filler.tokenizer is None:
        return True
    return bool(subject.tokenizer.get_vocab() == filler.tokenizer.get_vocab())
