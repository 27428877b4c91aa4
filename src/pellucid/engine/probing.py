"""A small question that any model can be asked, for checks of the engine on the model at hand."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pellucid.core.tokens import Tokens
from pellucid.engine.readout import Part, Readout
from pellucid.models.proofs import probe

if TYPE_CHECKING:
    from pellucid.models.subject import Subject


def small_question(subject: Subject) -> tuple[Tokens, Readout] | None:
    """Return a prompt of five tokens and what is read from it, or None for masked language models and black boxes."""
    if subject.head == "masked-lm" or subject.kind == "black-box":
        return None
    row = probe(subject, 5)
    tokens = Tokens(row.ids, tuple("" for _ in row.ids), (False,) * len(row.ids))
    kind = {"classification": "pooled", "none": "vector"}.get(subject.head, "next")
    function = None if subject.head != "none" else lambda mean: mean[:, 0]
    ids = (1,) if kind != "next" else row.ids[:2]
    return tokens, Readout(kind, (Part(ids),), "logit", False, ("",), "probe", function=function)  # type: ignore[arg-type]
