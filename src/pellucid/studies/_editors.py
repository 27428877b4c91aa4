"""Let an editor write facts, whatever it returns: an edit of weights, a memory, or an editor that was trained."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pellucid.core.errors import InputError
from pellucid.core.results import Learned, WeightEdit
from pellucid.engine import (
    activation_memory,
    belief_updates,
    gradient_editor,
    hyper_editor,
    scoped_memory,
    side_memory,
)
from pellucid.engine.edit_cases import EditCase
from pellucid.methods import function
from pellucid.models.edits import Edit
from pellucid.models.subject import Subject

TRAINED = ("mend", "knowledge_editor", "slag", "serac")  # learn from other facts, and are then given those to be edited
FEWEST_OTHERS = 8
WRITERS: dict[str, Callable[[Subject, Learned, Any], WeightEdit]] = {
    gradient_editor.APPLY: gradient_editor.write,
    hyper_editor.APPLY: hyper_editor.hyper_write,
    belief_updates.APPLY: belief_updates.update_beliefs,
}
MEMORIES: dict[str, Callable[[Subject, Learned, Any], tuple[Edit, ...]]] = {
    activation_memory.APPLY: lambda subject, memory, facts: (activation_memory.memory_edit(memory),),
    side_memory.APPLY: lambda subject, memory, facts: side_memory.side_edits(subject, memory),
    scoped_memory.APPLY: lambda subject, editor, facts: (scoped_memory.scoped_edit(subject, editor, facts),),
}


def written(
    name: str, subject: Subject, cases: Sequence[EditCase], others: Sequence[EditCase], settings: Mapping[str, Any],
    seed: int,
) -> tuple[Subject, WeightEdit | None]:  # fmt: skip
    """Return a view of the model in which an editor wrote the facts of all cases, and its edit of weights if it is one.

    Raises:
        InputError: no such editor, one whose result is no edit, or too few other facts to train on.
        EditError, CapabilityError: what the editor itself refuses.
    """
    editor, facts = function(name), [case.fact for case in cases]
    if name in TRAINED and len(others) < FEWEST_OTHERS:
        raise InputError(
            f"{name} trains on facts other than those to be edited, but {len(others)} are left and {FEWEST_OTHERS} "
            "are needed; give more facts, or fewer pairs."
        )
    # An editor of many facts at once has to be trained on as many.
    known = {"seed": seed, "together": max(1, min(len(cases), len(others)))}
    own = {key: value for key, value in known.items() if key in inspect.signature(editor).parameters}
    found: Any = editor(subject, list(others) if name in TRAINED else facts, **{**own, **settings})
    apply = found.apply if isinstance(found, Learned) else ""
    if apply in MEMORIES:
        return subject.with_(*MEMORIES[apply](subject, found, facts)), None
    if apply in WRITERS:
        found = WRITERS[apply](subject, found, facts)
    if isinstance(found, WeightEdit):
        return subject.with_(found), found
    raise InputError(
        f"{name} was asked to edit facts, but what it returns is neither an edit of weights nor a memory; name editors "
        "such as rome or grace."
    )
