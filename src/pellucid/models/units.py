"""The parts of a prompt that an explanation speaks about: tokens, words, sentences, lines, messages or given spans.

Units are ranges of token positions. Text is cut into words and so on, and a token belongs to the stretch that its
characters, spaces around them aside, lie in; stretches that share a token become one unit. Spaces go with what stands
in front of them. So units never overlap, cover every token that is not special, and never cross a message or a special
token. Only the display pieces are read: tokenizers without offsets work just as well.
"""

from __future__ import annotations

import bisect
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from numbers import Integral
from typing import Any

import regex

from pellucid.core.errors import InputError, did_you_mean
from pellucid.core.tokens import Tokens, Units

WITH_SPECIAL = "+special"
# Abbreviations end in a full stop that ends no sentence; those that often do end one ("etc.") are left out.
ABBREVIATION = regex.compile(
    r"dr|mr|mrs|ms|prof|st|sr|jr|rev|hon|gen|col|sgt|capt|lt|gov|sen|rep|pres|vs|cf|al|figs?|eqs?|sec|ch|vol|nos?|pp|"
    r"eds?|approx|est|dept|e\.g|i\.e|a\.k\.a|ca|bzw|z\.b",
    regex.IGNORECASE,
)
WORD_BORDER = regex.compile(r"(?wV1)\b")  # the default word boundaries of Unicode (UAX 29)
LINE_END = regex.compile(r"\r\n|\n|\r")
BLANK_LINE = r"(?:\r\n|\n|\r)[ \t]*(?:\r\n|\n|\r)\s*"
CLOSING = r"[\"'”’»)\]}]*"
SENTENCE_END = regex.compile(
    rf"(?P<wide>[。！？｡]+[」』”’）》]*\s*)|(?P<narrow>[.!?…؟۔।॥]+{CLOSING})(?P<space>\s+)|(?P<blank>{BLANK_LINE})"
)


def units(tokens: Tokens, unit: str | Units | Sequence[Sequence[int]] = "token", *, special: bool = False) -> Units:
    """Cut a prompt into units.

    Args:
        tokens: The prompt.
        unit: "token": each token; the further bytes of a character that several tokens share are labelled ⟨é:2⟩.
            "word": the default word boundaries of Unicode; punctuation marks are words of their own (a run of one mark
            is one), "don't" and "3.14" are single words, and so is every Chinese character.
            "sentence": an approximation by rules (end marks, closing quotes, common abbreviations and initials,
            decimals, an end mark followed by a small letter ends nothing, a blank line does).
            "line": up to and including the line break; empty lines belong to the line before.
            "message": one unit per chat message, labelled with its role, per text of a pair, or the whole text; a
            message that the template repeats or splits gives one unit for each stretch.
            A name with "+special" makes each special or template token a unit, too.
            A list of token ranges (start, end) in order is taken as it is, as are `Units`.
        special: The same as "+special".

    Returns:
        Ordered, non-overlapping token ranges with a label each.

    Raises:
        InputError: The unit is unknown, needs text where there are only ids, or a range is not within the prompt.
    """
    if not isinstance(unit, str):
        return _given(tokens, unit)
    name = unit.removesuffix(WITH_SPECIAL)
    special = special or name != unit
    if name not in ("token", "message", *CUTS):
        raise InputError(
            f"The unit {unit!r} is unknown{did_you_mean(name, ['token', 'message', *CUTS])}; use token, word, "
            "sentence, line, message (each also with '+special') or a list of token ranges (start, end)."
        )
    if name in CUTS and not tokens.text and tokens.offsets is None:
        raise InputError(
            f"Units of kind {name!r} need text, but the prompt is token ids without a tokenizer; use 'token'."
        )
    spans: list[tuple[int, int]] = []
    labels: list[str] = []
    for start, end, is_special in _runs(tokens):
        if is_special:
            here = [(i, i + 1) for i in range(start, end)] if special else []
            names = [tokens.pieces[i] for i, _ in here]
        elif name == "token":
            here = [(i, i + 1) for i in range(start, end)]
            names = _token_labels(tokens.pieces[start:end])
        elif name == "message":
            here = [(start, end)]
            names = [_message_label(tokens, start)]
        else:
            here = [(start + a, start + b) for a, b in _cut(tokens.pieces[start:end], CUTS[name])]
            names = [_text_label(tokens.pieces[a:b]) for a, b in here]
        spans += here
        labels += names
    return Units(name + WITH_SPECIAL if special else name, tuple(spans), tuple(labels))


def _given(tokens: Tokens, unit: Any) -> Units:
    """Check given units or token ranges against the prompt and label them."""
    pairs: Iterable[Any] = unit.spans if isinstance(unit, Units) else unit
    spans = []
    for pair in pairs:
        if not isinstance(pair, Sequence) or len(pair) != 2 or not all(isinstance(x, Integral) for x in pair):
            raise InputError(f"A unit is a token range (start, end), but {pair!r} was given; see `units`.")
        start, end = int(pair[0]), int(pair[1])
        if start < 0 or end > len(tokens):
            raise InputError(
                f"The unit ({start}, {end}) is not within the prompt of {len(tokens)} tokens; "
                f"give ranges between 0 and {len(tokens)}."
            )
        spans.append((start, end))
    if isinstance(unit, Units):
        return unit
    if not spans:
        raise InputError("The list of units is empty; give at least one token range (start, end).")
    Units("span", tuple(spans))  # refuses disorder before a label is made
    return Units("span", tuple(spans), tuple(_text_label(tokens.pieces[start:end]) for start, end in spans))


def _runs(tokens: Tokens) -> list[tuple[int, int, bool]]:
    """Return maximal stretches of tokens of one message, and of special tokens, as (start, end, special)."""
    messages = tokens.message or (0,) * len(tokens)
    runs: list[tuple[int, int, bool]] = []
    last: tuple[bool, int] | None = None
    for position, key in enumerate(zip(tokens.special, messages, strict=True)):
        if key == last:
            runs[-1] = (runs[-1][0], position + 1, key[0])
        else:
            runs.append((position, position + 1, key[0]))
        last = key
    return runs


def _token_labels(pieces: Sequence[str]) -> list[str]:
    """Name tokens by their pieces; a token without characters by the character it continues, and its turn."""
    labels: list[str] = []
    owner, turn = "", 1
    for piece in pieces:
        if piece:
            owner, turn = piece[-1], 1
            labels.append(piece)
        else:
            turn += 1
            labels.append(f"⟨{owner}:{turn}⟩" if owner else "▁")  # only a word's start mark stands before all text
    return labels


def _text_label(pieces: Sequence[str]) -> str:
    """Name a unit by its text without the spaces around it; a unit of spaces alone by these."""
    text = "".join(pieces)
    return text.strip() or text


def _message_label(tokens: Tokens, start: int) -> str:
    """Name a message by its role, a text of a pair by its number."""
    if tokens.roles and tokens.roles[start]:
        return tokens.roles[start]
    pair = bool(tokens.message) and max(tokens.message) > 0
    return f"text {tokens.message[start] + 1}" if pair else "text"


def _cut(pieces: Sequence[str], starts_of: Callable[[str], list[int]]) -> list[tuple[int, int]]:
    """Group tokens by the stretches of text that they touch."""
    starts = starts_of("".join(pieces))
    spans: list[tuple[int, int]] = []
    at, reached = 0, -1
    for number, piece in enumerate(pieces):
        core = piece.strip()
        first = last = reached
        if core:
            begin = at + len(piece) - len(piece.lstrip())
            first, last = (bisect.bisect_right(starts, p) - 1 for p in (begin, begin + len(core) - 1))
        elif piece:
            first = last = bisect.bisect_right(starts, at) - 1
        at += len(piece)
        if spans and (first <= reached or reached < 0):  # below 0: nothing but the mark of a word's start so far
            spans[-1] = (spans[-1][0], number + 1)
        else:
            spans.append((number, number + 1))
        reached = max(reached, last)
    return spans


def word_starts(text: str) -> list[int]:
    """Return where each word starts; spaces belong to the word in front of them, leading ones to the first."""
    starts: list[int] = []
    at, before = 0, ""
    for stretch in WORD_BORDER.split(text):
        repeated = stretch == before and len(stretch) == 1 and unicodedata.category(stretch).startswith("P")
        if stretch and not stretch.isspace() and not repeated:
            starts.append(at if starts else 0)
        at += len(stretch)
        before = stretch or before
    return starts or [0]


def line_starts(text: str) -> list[int]:
    """Return where each line starts; its line break is part of it."""
    return [0, *(match.end() for match in LINE_END.finditer(text) if match.end() < len(text))]


def sentence_starts(text: str) -> list[int]:
    """Return where each sentence starts, by rules: an approximation, made for English and languages written like it."""
    starts = [0]
    leading = len(text) - len(text.lstrip())
    for match in SENTENCE_END.finditer(text):
        inside = leading < match.end() < len(text)
        if inside and (not match["narrow"] or _ends_sentence(text, match)):
            starts.append(match.end())
    return starts


def _ends_sentence(text: str, match: Any) -> bool:
    """Decide whether an end mark followed by spaces ends a sentence."""
    if regex.match(BLANK_LINE, match["space"].lstrip(" \t")):
        return True
    following = text[match.end() : match.end() + 5].lstrip("\"'“‘«([{")[:1]
    if following.islower():
        return False
    if match["narrow"] == ".":
        word = regex.split(r"[\s\"'“‘«(\[{]", text[max(0, match.start() - 24) : match.start()])[-1]
        initial = len(word) == 1 and word.isalpha() and word.isupper() and word != "I"
        return not initial and ABBREVIATION.fullmatch(word) is None
    return True


CUTS: dict[str, Callable[[str], list[int]]] = {
    "word": word_starts,
    "sentence": sentence_starts,
    "line": line_starts,
}
