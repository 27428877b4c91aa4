"""The text that each token stands for: display pieces and character ranges, exact wherever the tokenizer allows it.

The ranges *tile* the text: each token owns the characters from where the one before it ends, so that leading space
belongs to its token and the pieces join to the text. A character split over several tokens belongs to the first of
them; the others own nothing and have the empty range (k, k).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

BROKEN = "\ufffd"
LONGEST_CHARACTER = 4


def decode(tokenizer: Any, ids: Sequence[int]) -> str:
    """Decode ids exactly as they are: nothing skipped, no spaces tidied."""
    return tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False)


def raw_tokens(tokenizer: Any, ids: Sequence[int]) -> list[str | None]:
    """Return the vocabulary entry of each id, None where the tokenizer has none."""

    def entry(number: int) -> str | None:
        try:
            return tokenizer.convert_ids_to_tokens(number)
        except (IndexError, KeyError, OverflowError, TypeError, ValueError):
            return None  # slow tokenizers raise what their own table raises

    known = {number: entry(number) for number in set(ids)}
    return [known[number] for number in ids]


def decoded_pieces(tokenizer: Any, ids: Sequence[int]) -> list[str]:
    """Return the text that each id adds to the decoded text; special and added tokens as their literal.

    The joined pieces equal the decoded text between two special tokens (decoders drop the space in front of the first
    word there). An id without a vocabulary entry is shown as ⟨id⟩.
    """
    added = {number: str(token) for number, token in tokenizer.added_tokens_decoder.items()}
    literal = {
        number: added.get(number, f"⟨{number}⟩")
        for number, raw in zip(ids, raw_tokens(tokenizer, ids), strict=True)
        if raw is None or number in added
    }
    pieces: list[str] = []
    plain: list[int] = []
    for number in ids:
        if number in literal:
            pieces += [*_grow(tokenizer, plain), literal[number]]
            plain = []
        else:
            plain.append(number)
    return pieces + _grow(tokenizer, plain)


def _grow(tokenizer: Any, ids: Sequence[int]) -> list[str]:
    """Decode a growing window and give each token what it adds; an unfinished character waits for its last byte."""
    pieces = [""] * len(ids)
    window = clean = 0  # the first token decoded; the first one after the last finished character
    shown, owner = "", None
    for i in range(len(ids)):
        text = decode(tokenizer, ids[window : i + 1])
        if not text.startswith(shown):  # a decoder that rewrites earlier text: show the token by itself
            window, shown, owner = i, "", None
            text = decode(tokenizer, ids[i : i + 1])
        whole = shown + text[len(shown) :].rstrip(BROKEN)
        if i + 1 == len(ids) or (owner is not None and i - owner >= LONGEST_CHARACTER):
            whole = text  # the character never ends: the bytes are not text
        fresh = whole[len(shown) :]
        if fresh and owner is not None:
            pieces[owner] += fresh[0]
            fresh, owner = fresh[1:], None
        pieces[i] += fresh
        if whole == text:
            window, clean, owner = clean, i + 1, None
            shown = decode(tokenizer, ids[window : i + 1])
        else:
            shown, owner = whole, i if owner is None else owner
    return pieces


def _aligned_ends(pieces: Sequence[str], text: str) -> list[int] | None:
    """Find the pieces in the text one after the other, up to spaces and case; None where that fails."""
    ends, at = [], 0
    for piece in pieces:
        core = piece.strip()
        if core:
            while at < len(text) and text[at].isspace() and not text.startswith(core, at):
                at += 1
            here = text[at : at + len(core)]
            if here != core and here.lower() != core.lower():
                return None
            at += len(core)
        ends.append(at)
    return None if text[at:].strip() else ends


def _tile(ends: Sequence[int], length: int) -> list[tuple[int, int]]:
    """Turn the ends of tokens into ranges that cover every character once."""
    ranges, covered = [], 0
    for number, end in enumerate(ends, start=1):
        last = length if number == len(ends) else min(max(end, covered), length)
        ranges.append((covered, last))
        covered = last
    return ranges


def _with_dropped(offsets: Sequence[tuple[int, int]], text: str) -> list[int]:
    """Return the ends of tokens, each moved over what the tokenizer drops right behind it, such as accents."""
    ends = []
    following = [start for start, _ in offsets[1:]] + [len(text)]
    for (_, end), limit in zip(offsets, following, strict=True):
        at = end
        while at < limit and not text[at].isspace():
            at += 1
        ends.append(at)
    return ends


def character_ranges(
    tokenizer: Any, ids: Sequence[int], text: str, offsets: Sequence[tuple[int, int]] | None
) -> list[tuple[int, int]] | None:
    """Return ranges [start, end) that tile `text`, one per id, or None where they cannot be known.

    `ids` are the tokens of `text` alone (none that the tokenizer added around it); `offsets` is what the tokenizer says
    about them, None for a tokenizer that says nothing. Offsets without overlap are taken as they are; otherwise (a
    character over several tokens, offsets that leave spaces out) the decoded text decides where it agrees with `text`,
    exactly or up to spaces and case.
    """
    if not ids:
        return []
    if offsets is not None:
        starts = [start for start, _ in offsets]
        ends = [end for _, end in offsets]
        if all(e <= s for e, s in zip([0, *ends], starts, strict=False)) and all(s < e for s, e in offsets):
            return _tile(_with_dropped(offsets, text), len(text))
    pieces = decoded_pieces(tokenizer, ids)
    if "".join(pieces) == text:
        total, found = 0, []
        for piece in pieces:
            total += len(piece)
            found.append(total)
        return _tile(found, len(text))
    aligned = _aligned_ends(pieces, text)
    if aligned is not None:
        return _tile(aligned, len(text))
    if offsets is None:
        return None
    # A lone ▁ that the tokenizer put in front of a word claims that word's first character: it owns nothing.
    raw = raw_tokens(tokenizer, ids)
    owned = [(s, s if r == "▁" and text[s:e].strip() else e) for r, (s, e) in zip(raw, offsets, strict=True)]
    return _tile([end for _, end in owned], len(text))
