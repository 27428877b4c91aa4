"""Whether something learned is the editor that is asked for, and was learned for the model at hand."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pellucid.core.errors import EditError
from pellucid.core.results import Learned

if TYPE_CHECKING:
    from pellucid.models.subject import Subject


def need_editor(subject: Subject, editor: Learned, apply: str, maker: str) -> None:
    """Raise `EditError` unless `editor` is applied by `apply` and was learned for the subject's own weights.

    Args:
        subject: the model that is to be edited.
        editor: what was given.
        apply: what such an editor is applied by.
        maker: the method that returns one.
    """
    if editor.apply != apply:
        raise EditError(
            f"An editor was asked for, but this is applied by {editor.apply!r}; give what {maker} returned."
        )
    own, there = subject.weights_hash(), editor.provenance.weights_hash
    if there not in ("", own):
        raise EditError(
            f"The editor was learned for the weights {there}, but {subject.name} has {own}; run {maker} on this model."
        )
