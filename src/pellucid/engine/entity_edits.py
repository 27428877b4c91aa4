"""Attributes added to the representation of an entity: REMEDI's map put to use on one prompt."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

from pellucid.core.errors import EditError
from pellucid.core.facts import Fact, as_facts
from pellucid.core.results import Learned
from pellucid.engine.continuations import following_ids, need_speaker
from pellucid.engine.edit_requests import subject_position
from pellucid.engine.planning import in_batches
from pellucid.models.batch import Row
from pellucid.models.edits import Edit
from pellucid.models.forward import forward

if TYPE_CHECKING:
    from typing import Any

    from pellucid.models.subject import Subject

APPLY = "entity_editor"


class Described(NamedTuple):
    """A fact on one model: its prompt's ids, where the entity ends there, the target's ids, and the whole statement."""

    prompt: tuple[int, ...]
    position: int
    target: tuple[int, ...]


def described(subject: Subject, facts: Sequence[Fact]) -> list[Described]:
    """Return facts as ids.

    Raises:
        CapabilityError: no causal language model with a tokenizer.
        InputError: an entity without a token of its own, or a row that is too long.
    """
    need_speaker(subject, "Editing an entity")
    found = []
    for fact in facts:
        prompt, target = following_ids(subject, fact.text, fact.target)
        place = subject_position(subject.encode(fact.text), fact.span[1], fact.subject)
        found.append(Described(prompt, place, target))
    return found


@torch.no_grad()
def attribute_vectors(subject: Subject, rows: Sequence[Described], site: str) -> torch.Tensor:
    """Return what the model makes of each target in its statement, a mean over the target's tokens: [facts, size]."""
    wide = torch.float64 if subject.dtype == "float64" else torch.float32

    def run(batch: list[Described]) -> list[torch.Tensor]:
        output = forward(subject, [Row((*row.prompt, *row.target)) for row in batch], capture=[site], stop=True)
        return [output.row(site, i)[len(row.prompt) :].mean(0).to(wide) for i, row in enumerate(batch)]

    return torch.stack(in_batches(rows, [len(row.prompt) + len(row.target) for row in rows], run))


def entity_edit(subject: Subject, editor: Learned, fact: Any, *, prompt: str | None = None) -> Edit:
    """Return the edit that gives an entity a new attribute in one prompt: `subject.with_(entity_edit(...))`.

    h' = h + W a + b at the entity's last token, a what the model makes of the target behind the fact's own prompt.

    Args:
        subject: the model that the editor was trained for.
        editor: what remedi returned.
        fact: `Fact(prompt, subject, target)`: the entity and the attribute in words.
        prompt: the prompt to be edited, which names the entity; None means the fact's own.

    Raises:
        EditError: something else than such an editor.
        InputError: a prompt without the entity.
    """
    if editor.apply != APPLY:
        raise EditError(f"An editor was asked for, but this is applied by {editor.apply!r}; give what remedi returned.")
    [own] = as_facts(fact)
    vector = attribute_vectors(subject, described(subject, [own]), editor.site)[0]
    used = own if prompt is None else Fact(prompt, own.subject, own.target)
    place = subject_position(subject.encode(used.text), used.span[1], used.subject)
    weight, bias = (torch.as_tensor(np.asarray(editor.tensors[name])).to(vector) for name in ("weight", "bias"))
    return Edit(editor.site, "add", weight @ vector + bias, {"position": place})
