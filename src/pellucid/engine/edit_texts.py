"""What an editor of facts is trained on: wordings that shall follow a new answer, and prompts that shall stay."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import torch

from pellucid.core.errors import InputError
from pellucid.engine.edit_cases import EditCase, following, nearby
from pellucid.engine.edit_factors import Wanted, wanted_rows
from pellucid.engine.edit_losses import next_log_probs

if TYPE_CHECKING:
    from pellucid.models.subject import Subject

Ids = tuple[int, ...]
Item = TypeVar("Item")


@dataclass(frozen=True, eq=False)
class EditTexts:
    """Per fact the rows of its wordings, of what follows from it, and the ids of prompts that shall stay.

    The fact's own prompt is the first of `worded`; `kept` are its neighbours and the other facts' prompts; `before` has
    the log-probabilities [vocabulary] of the unchanged model behind each of `kept`.
    """

    worded: list[list[Wanted]]
    following: list[list[Wanted]]
    kept: list[list[Ids]]
    before: Mapping[Ids, torch.Tensor]


def edit_texts(subject: Subject, cases: Sequence[EditCase]) -> EditTexts:
    """Return the texts of some facts on this model.

    Raises:
        InputError: a fact without a neighbour, where all others have its prompt too.
    """
    worded, follows, kept = list[list[Wanted]](), list[list[Wanted]](), list[list[Ids]]()
    prompts = {case.fact.text: subject.encode(case.fact.text).ids for case in cases}
    for case in cases:
        own = case.fact
        worded.append(wanted_rows(subject, [(text, own.target) for text in (own.text, *case.paraphrases)]))
        follows.append(wanted_rows(subject, [(question.prompt, question.answer) for question in following([case])]))
        stay = [subject.encode(question.prompt).ids for question in nearby([case])]
        stay += [ids for text, ids in prompts.items() if text != own.text]
        if not stay:
            raise InputError(
                f"The fact {own.text!r} has no neighbour, and no other fact has another prompt, so nothing could be "
                "kept as it is; give EditCase(fact, neighbours=...)."
            )
        kept.append(stay)
    return EditTexts(worded, follows, kept, next_log_probs(subject, [ids for own in kept for ids in own]))


def drawn(items: Sequence[Item], generator: torch.Generator) -> Item:
    """Return one of some items at random."""
    return items[int(torch.randint(len(items), (1,), generator=generator))]
