"""A fact to edit: what is asked about whom, and the answer that is wanted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, cast

from pellucid.core.errors import InputError, did_you_mean


@dataclass(frozen=True)
class Fact:
    """A request to an editor: behind `prompt`, which is about `subject`, the model shall say `target`.

    `prompt` has `{}` where the subject stands, or holds the subject itself (its last occurrence counts). `target` may
    be of many tokens; a space is put between it and the prompt where neither has one. `true` is the answer so far,
    which some scores compare with; "" where it is not known.

    Raises:
        InputError: a prompt without its subject, an empty subject or an empty target.
    """

    prompt: str
    subject: str
    target: str
    true: str = ""

    def __post_init__(self) -> None:
        """Check that the subject stands in the prompt, so that a wrong request fails where it is written."""
        for name in ("subject", "target"):
            if not getattr(self, name).strip():
                raise InputError(f"The fact {self.prompt!r} has an empty {name}; name the {name}.")
        if "{}" not in self.prompt and self.subject not in self.prompt:
            raise InputError(
                f"The prompt {self.prompt!r} lacks its subject {self.subject!r}; write the subject in it, or {{}} in "
                "its place."
            )

    @property
    def text(self) -> str:
        """Return the prompt with the subject in its place."""
        return self.prompt.replace("{}", self.subject, 1)

    @property
    def span(self) -> tuple[int, int]:
        """Return the range of characters of `text` that is the subject."""
        start = self.prompt.find("{}") if "{}" in self.prompt else self.prompt.rfind(self.subject)
        return start, start + len(self.subject)

    @property
    def continuation(self) -> str:
        """Return the target as it follows `text`: with a space in front unless one of the two has it."""
        return continuation(self.text, self.target)


def continuation(prompt: str, answer: str) -> str:
    """Return an answer as it follows a prompt: with a space in front unless one of the two has it."""
    joined = prompt[-1:].isspace() or answer[:1].isspace() or not prompt
    return answer if joined else f" {answer}"


def as_facts(given: Any) -> tuple[Fact, ...]:
    """Return requests as a tuple of `Fact`: one or several, each a Fact or a mapping with its fields.

    Raises:
        InputError: nothing is given, or something that is no fact.
    """
    several = isinstance(given, Sequence) and not isinstance(given, str)
    items: list[Any] = list(cast("Sequence[Any]", given)) if several else [given]
    if not items:
        raise InputError("No fact was given; pass a Fact(prompt, subject, target) or a list of them.")
    return tuple(_fact(item) for item in items)


def _fact(item: Any) -> Fact:
    if isinstance(item, Fact):
        return item
    known = [field.name for field in fields(Fact)]
    if not isinstance(item, Mapping):
        raise InputError(f"A {type(item).__name__} was given as a fact; pass Fact({', '.join(known)}).")
    found = cast("Mapping[str, Any]", item)
    for key in found:
        if key not in known:
            raise InputError(f"A fact has no field {key!r}{did_you_mean(key, known)}; it has {', '.join(known)}.")
    lacking = [name for name in known[:3] if name not in found]
    if lacking:
        raise InputError(f"A fact lacks {' and '.join(lacking)}; give {', '.join(known[:3])}.")
    return Fact(**{key: str(value) for key, value in found.items()})
