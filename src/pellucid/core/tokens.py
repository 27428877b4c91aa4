"""A prompt as the model sees it, and the units that an explanation speaks about."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from pellucid.core.errors import InputError


@dataclass(frozen=True)
class Tokens:
    """A tokenised prompt; every sequence has one entry per token.

    `pieces` are display strings (a character split over byte tokens is shown on its first token, the others are
    empty); `offsets` are character ranges of `text`, or None without a tokenizer that knows them; `special` marks
    tokens that the tokenizer or template added; `roles` names the chat role a token belongs to ("" outside chats);
    `message` is the index of the chat message or text segment, -1 for template tokens.
    """

    ids: tuple[int, ...]
    pieces: tuple[str, ...]
    special: tuple[bool, ...]
    text: str = ""
    offsets: tuple[tuple[int, int], ...] | None = None
    roles: tuple[str, ...] = ()
    message: tuple[int, ...] = ()
    segment: tuple[int, ...] = ()

    def __len__(self) -> int:
        """Return the number of tokens."""
        return len(self.ids)


@dataclass(frozen=True)
class Units:
    """The parts of a prompt that scores are given for: ranges [start, end) of token positions, in order."""

    kind: str
    spans: tuple[tuple[int, int], ...]
    labels: tuple[str, ...] = field(default=())

    def __post_init__(self) -> None:
        """Check that the spans are ordered, non-empty and do not overlap."""
        last = 0
        for start, end in self.spans:
            if start < last or end <= start:
                raise InputError(
                    f"Units must be ordered token ranges that do not overlap, but ({start}, {end}) follows "
                    f"position {last}; "
                    "sort them and give each as (start, end) with start < end."
                )
            last = end

    def __len__(self) -> int:
        """Return the number of units."""
        return len(self.spans)

    def positions(self) -> tuple[int, ...]:
        """Return every token position that belongs to some unit."""
        return tuple(p for start, end in self.spans for p in range(start, end))


def label_units(tokens: Tokens, spans: Sequence[tuple[int, int]], kind: str) -> Units:
    """Name each span by its text, or by its pieces where the tokenizer gives no offsets."""
    labels: list[str] = []
    for start, end in spans:
        if tokens.offsets is not None and tokens.text:
            first, last = tokens.offsets[start][0], max(o[1] for o in tokens.offsets[start:end])
            labels.append(tokens.text[first:last] or "".join(tokens.pieces[start:end]))
        else:
            labels.append("".join(tokens.pieces[start:end]))
    return Units(kind, tuple((int(s), int(e)) for s, e in spans), tuple(labels))
