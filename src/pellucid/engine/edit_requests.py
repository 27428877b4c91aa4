"""Facts as the rows that editors run: token ids, where the subject ends and which places predict the target."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from pellucid.core.errors import CapabilityError, InputError
from pellucid.core.facts import Fact
from pellucid.core.tokens import Tokens
from pellucid.models import inputs

if TYPE_CHECKING:
    from pellucid.models.subject import Subject

Place = Literal["subject", "last"]
ESSENCE = "{} is a"


@dataclass(frozen=True)
class Written:
    """One wording of a fact, teacher-forced: `ids` are the prompt and all tokens of the target but the last.

    `position` is where it is edited, the subject's last token or the prompt's; `prompt` is the number of tokens of the
    prompt, `target` the target's ids. The essence prompt has no target.
    """

    ids: tuple[int, ...]
    position: int
    prompt: int
    target: tuple[int, ...]

    @property
    def places(self) -> tuple[int, ...]:
        """Return the positions whose logits predict the target; the last position where there is none."""
        return tuple(range(self.prompt - 1, self.prompt - 1 + max(1, len(self.target))))


@dataclass(frozen=True)
class Wordings:
    """A fact behind each prefix (the first is no prefix), and the prompt that asks what the subject is."""

    fact: Fact
    rows: tuple[Written, ...]
    essence: Written


def wordings(
    subject: Subject, facts: Sequence[Fact], prefixes: Sequence[str] = (), token: Place = "subject"
) -> list[Wordings]:
    """Return each fact alone and behind every prefix, to be edited at the subject's last token or the prompt's.

    Raises:
        CapabilityError: a model that is no decoder with a language-model head, or has no tokenizer.
        InputError: a subject that cannot be found among the tokens, or a row longer than the model takes.
    """
    require_decoder(subject)
    found = []
    for fact in facts:
        end = fact.span[1]
        texts = [(fact.text, end), *((f"{prefix} {fact.text}", end + len(prefix) + 1) for prefix in prefixes)]
        target = _target(subject, fact)
        rows = tuple(_written(subject, text, at, target) for text, at in texts)
        if token == "last":
            rows = tuple(replace(row, position=row.prompt - 1) for row in rows)
        essence = _written(subject, ESSENCE.format(fact.subject), len(fact.subject), ())
        found.append(Wordings(fact, rows, essence))
    return found


def require_decoder(subject: Subject) -> None:
    """Raise `CapabilityError` for a subject whose feed-forward layers are not those of a decoder that predicts text."""
    if subject.kind != "decoder" or subject.head != "causal-lm":
        raise CapabilityError(
            f"Editing facts was asked of {subject.name}, a {subject.kind} with head {subject.head}; it is defined for "
            "decoders with a language-model head."
        )
    if subject.tokenizer is None:
        raise CapabilityError(
            f"Editing facts needs the tokens of texts, but {subject.name} was loaded without a tokenizer; pass one."
        )


def subject_position(tokens: Tokens, end: int, name: str) -> int:
    """Return the last token of the subject, whose characters end at `end` of the text."""
    offsets = tokens.offsets
    if offsets is None:
        raise InputError(f"The tokens of {tokens.text!r} have no offsets, so {name!r} cannot be found; use a fast one.")
    # A character split over several tokens belongs to the first of them; the others are empty ranges behind it.
    inside = [i for i, (a, b) in enumerate(offsets) if not tokens.special[i] and a < end and a < b]
    if not inside:
        raise InputError(f"The subject {name!r} has no token in {tokens.text!r}; write it in the prompt.")
    last = inside[-1]
    while last + 1 < len(offsets) and not tokens.special[last + 1] and offsets[last + 1] == (end, end):
        last += 1
    return last


def _target(subject: Subject, fact: Fact) -> tuple[int, ...]:
    return inputs.target_ids(subject.tokenizer, fact.continuation, prompt_tokens=subject.encode(fact.text))


def _written(subject: Subject, text: str, end: int, target: tuple[int, ...]) -> Written:
    tokens = subject.encode(text)
    ids = (*tokens.ids, *target[:-1])
    if subject.max_length is not None and len(ids) > subject.max_length:
        raise InputError(
            f"{text[:60]!r} and its target are {len(ids)} tokens, but {subject.name} takes {subject.max_length}; "
            "shorten the prompt or the prefixes."
        )
    return Written(ids, subject_position(tokens, end, text[:end]), len(tokens), target)
