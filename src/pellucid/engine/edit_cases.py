"""Facts to edit together with the questions by which an edit of them is judged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pellucid.core.errors import InputError
from pellucid.core.facts import Fact, as_facts

Answered = tuple[str, str]


@dataclass(frozen=True)
class EditCase:
    """A fact and what else is asked about it.

    `paraphrases` are other prompts that the new answer should follow. `neighbours` are prompts about other subjects,
    which should stay as they are: (prompt, true answer), or a prompt alone where the fact's own `true` is its answer
    too, as in CounterFact. `consequences` holds, by kind ("logical", "compositional", "aliasing", "multi-hop" or a
    word of your own), (prompt, answer) that follow from the new fact. `references` are texts about things that the new
    answer is true of.
    """

    fact: Fact
    paraphrases: tuple[str, ...] = ()
    neighbours: tuple[str | Answered, ...] = ()
    consequences: Mapping[str, tuple[Answered, ...]] = field(default_factory=dict[str, tuple[Answered, ...]])
    references: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Check that every neighbour has an answer."""
        bare = [one for one in self.neighbours if isinstance(one, str)]
        if bare and not self.fact.true:
            raise InputError(
                f"The neighbour {bare[0]!r} stands without an answer and the fact about {self.fact.subject!r} without "
                "a true one; give (prompt, answer) or Fact(..., true=...)."
            )


@dataclass(frozen=True)
class Question:
    """One prompt of a case with the answer that counts as right, and the one it is held against ("" where unknown)."""

    case: int
    prompt: str
    answer: str
    rival: str = ""


def as_cases(given: Any) -> tuple[EditCase, ...]:
    """Return cases as a tuple: one or several, each an `EditCase`, a `Fact` or a mapping with the fields of one.

    Raises:
        InputError: nothing is given, or something that is no fact.
    """
    if isinstance(given, EditCase):
        return (given,)
    if isinstance(given, Sequence) and any(isinstance(item, EditCase) for item in given):
        return tuple(item if isinstance(item, EditCase) else EditCase(as_facts(item)[0]) for item in given)
    return tuple(EditCase(fact) for fact in as_facts(given))


def itself(cases: Sequence[EditCase]) -> list[Question]:
    """Return the prompts of the facts: the new answer against the true one."""
    return [Question(i, one.fact.text, one.fact.target, one.fact.true) for i, one in enumerate(cases)]


def paraphrased(cases: Sequence[EditCase]) -> list[Question]:
    """Return the paraphrases: the new answer against the true one."""
    return [
        Question(i, prompt, one.fact.target, one.fact.true) for i, one in enumerate(cases) for prompt in one.paraphrases
    ]


def nearby(cases: Sequence[EditCase]) -> list[Question]:
    """Return the neighbours: what is true there against the new answer of the fact."""
    found = []
    for i, one in enumerate(cases):
        for neighbour in one.neighbours:
            prompt, answer = (neighbour, one.fact.true) if isinstance(neighbour, str) else neighbour
            found.append(Question(i, prompt, answer, one.fact.target))
    return found


def following(cases: Sequence[EditCase], kind: str | None = None) -> list[Question]:
    """Return what follows from the new facts, of one kind or of all."""
    return [
        Question(i, prompt, answer)
        for i, one in enumerate(cases)
        for name, asked in one.consequences.items()
        if kind in (None, name)
        for prompt, answer in asked
    ]


def kinds(cases: Sequence[EditCase]) -> list[str]:
    """Return the kinds of consequences that any case has, in order of appearance."""
    return list(dict.fromkeys(name for one in cases for name in one.consequences))
