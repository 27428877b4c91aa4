"""A view of a model that reads a context before every prompt: what it is told, and not what it has learned."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer

from pellucid.core.errors import CapabilityError, InputError
from pellucid.core.results import Examples
from pellucid.models.subject import Subject

if TYPE_CHECKING:
    from pellucid.models.edits import Edit
    from pellucid.models.inputs import Encoded

Chooser = Callable[[str], str]


class InContext(Subject):
    """A subject that puts the text `context(prompt)` before every text prompt; where that is "", nothing changes.

    The tokens of a prompt are then those of context and prompt together, so every method and metric that is given the
    prompt sees both. Token ids are taken as they are, without a context.
    """

    def __init__(self, subject: Subject, context: Chooser) -> None:
        """Take over the subject; `context` chooses the text for a prompt."""
        if subject.tokenizer is None or subject.kind != "decoder":
            raise CapabilityError(
                f"A context goes before the text of a decoder with a tokenizer, but {subject.name} is a "
                f"{subject.kind}; load such a model."
            )
        self.__dict__.update(subject.__dict__)
        self.context = context

    def encoded(self, prompt: Any) -> Encoded:
        """Return the prompt behind its context, as the model sees it."""
        if isinstance(prompt, str):
            return super().encoded(self.context(prompt) + prompt)
        if isinstance(prompt, Sequence) and prompt and not isinstance(prompt[0], int):
            raise InputError("A context goes before plain text, but the prompt is a chat or a pair; give a text.")
        return super().encoded(prompt)

    def _view(self, edits: tuple[Edit, ...]) -> Subject:
        return InContext(super()._view(edits), self.context)


def nearest(texts: Sequence[str], queries: Sequence[str]) -> np.ndarray:
    """Return the tf-idf cosine of every query with every text: [queries, texts]."""
    vectors: Any = TfidfVectorizer(token_pattern=r"(?u)\b\w+\b", sublinear_tf=True).fit(list(texts))
    return np.asarray((vectors.transform(list(queries)) @ vectors.transform(list(texts)).T).todense())


def told(subject: Subject, texts: Examples, *, facts: int = 1, demonstrations: int = 8) -> Subject:
    """Return the subject as it reads, before every prompt, the new facts and demonstrations nearest to the prompt.

    Nearness is the cosine of tf-idf vectors; demonstrations stand in ascending order of it, the nearest last, and the
    facts behind them, in the form of the template up to its answer.

    Args:
        subject: a decoder with a tokenizer.
        texts: what in_context_editing returned.
        facts: facts that are told with one prompt.
        demonstrations: demonstrations before them.

    Raises:
        InputError: texts without a fact.
        CapabilityError: no decoder with a tokenizer.
    """
    stated = [str(item["text"]) for item in texts.items if item.get("kind") == "fact"]
    shown = [str(item["text"]) for item in texts.items if item.get("kind") != "fact"]
    if not stated:
        raise InputError("No fact is told by these texts; give what in_context_editing returned.")
    form = next(str(item["template"]) for item in texts.items if item.get("kind") == "fact")

    def context(prompt: str) -> str:
        best = _best(shown, prompt, demonstrations)
        new = " ".join(_best(stated, prompt, facts))
        ending = form.split("{prompt}")[0].format(fact=new)
        return "".join(best) + ending

    return InContext(subject, context)


def _best(texts: list[str], query: str, count: int) -> list[str]:
    """Return the texts nearest to a query, the nearest last; ties in the order given."""
    if not texts or not count:
        return []
    order = np.argsort(-nearest(texts, [query])[0], kind="stable")[:count]
    return [texts[i] for i in order[::-1]]
