"""Chat prompts: render a tokenizer's chat template and know which characters came from which message.

Templates are programs, so a message's content is found by experiment: it is wrapped in two marks that occur nowhere
else, the chat is rendered again, and if taking the marks out gives the first rendering, the marks stood exactly around
the content. This holds for templates that trim, repeat, escape or strip content, too.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pellucid.core.errors import InputError

Range = tuple[int, int]
FIRST_MARK = 0xF0000  # plane 15 is for private use: no script, no tokenizer's marker
JOINER = "\n\n"
THINKING = re.compile(r"</?think>")


@dataclass(frozen=True)
class Rendered:
    """A rendered chat: its text, each message's role and character ranges in it, and notes for the reader."""

    text: str
    roles: tuple[str, ...]
    ranges: tuple[tuple[Range, ...], ...]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class _Part:
    """Characters [start, end) of the content at `slot` of the rendered chat, written by message `message`."""

    slot: int
    start: int
    end: int
    message: int


def read_messages(chat: Sequence[Any]) -> list[tuple[str, str]]:
    """Return (role, content) of every message; raise `InputError` naming the message that cannot be used.

    Content is text, or a list of text parts {"type": "text", "text": ...}, which are joined.
    """
    if not chat:
        raise InputError("The chat has no messages; give at least one {'role': ..., 'content': ...}.")
    messages = []
    for number, message in enumerate(chat):
        if not isinstance(message, Mapping):
            raise InputError(
                f"Message {number} of the chat is of type {type(message).__name__}; "
                "give every message as {'role': ..., 'content': ...}."
            )
        unknown = [key for key, value in message.items() if key not in ("role", "content") and value is not None]
        if unknown:
            raise InputError(
                f"Message {number} of the chat has the key {unknown[0]!r}, which is not explained; "
                "write what it says into 'content' or leave it out."
            )
        for key in ("role", "content"):
            if message.get(key) is None:
                raise InputError(f"Message {number} of the chat has no {key!r}; give both 'role' and 'content'.")
        role = message["role"]
        if not isinstance(role, str) or not role:
            raise InputError(f"Message {number} of the chat has the role {role!r}; give a name such as 'user'.")
        messages.append((role, _content(message["content"], number)))
    return messages


def _content(content: Any, number: int) -> str:
    """Return the text of a message's content."""
    if isinstance(content, str):
        return content
    if not isinstance(content, (list, tuple)):
        raise InputError(
            f"The content of message {number} is of type {type(content).__name__}; give text or a list of text parts."
        )
    texts = []
    for part in content:
        kind = part.get("type") if isinstance(part, Mapping) else type(part).__name__
        text = part.get("text") if kind == "text" else None
        if not isinstance(text, str):
            raise InputError(
                f"Message {number} has a part of type {kind!r}, but only text is explained; "
                "keep parts {'type': 'text', 'text': ...} and describe the rest in words."
            )
        texts.append(text)
    return "".join(texts)


def render_chat(tokenizer: Any, messages: Sequence[tuple[str, str]], *, continue_chat: bool = True) -> Rendered:
    """Render (role, content) messages with the tokenizer's chat template.

    A chat that ends with the assistant's message is left open after it, for the model to continue
    (`continue_chat=False` closes it instead); any other chat ends with the template's generation prompt. A template
    that refuses system messages gets their text in front of the next user message, with a note.

    Returns:
        The text, and for each message the ranges of its content in it (exact wherever no note says otherwise; several
        where the template repeats or splits the content, none where it leaves it out).

    Raises:
        InputError: The tokenizer has no chat template, or the template refuses the chat.
    """
    if not getattr(tokenizer, "chat_template", None):
        raise InputError(
            "A chat was given, but the tokenizer has no chat template; set tokenizer.chat_template to the one the "
            "model was trained with, or give plain text."
        )
    closing = messages[-1][0] == "assistant"

    def render(contents: Sequence[str], names: Sequence[str]) -> str:
        turns = [{"role": role, "content": content} for role, content in zip(names, contents, strict=True)]
        return tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=not closing)

    names, contents, parts, notes = _accepted(render, messages)
    text = render(contents, names)
    found, remarks = _locate_all(lambda c: render(c, names), contents, text, parts)
    notes += remarks
    if closing and continue_chat:
        ends = [end for _, end in found[len(messages) - 1]]
        if ends:
            text = text[: max(ends)]
        else:
            notes.append("The last message could not be left open, so the prompt ends after the assistant's turn.")
    ranges = tuple(
        tuple(sorted((s, e) for s, e in found[number] if s < e <= len(text))) for number in range(len(messages))
    )
    return Rendered(text, tuple(role for role, _ in messages), ranges, tuple(notes))


def _accepted(
    render: Callable[[Sequence[str], Sequence[str]], str], messages: Sequence[tuple[str, str]]
) -> tuple[list[str], list[str], list[_Part], list[str]]:
    """Return roles, contents and parts that the template accepts: as given, or with system text in the user's turn."""
    names = [role for role, _ in messages]
    contents = [content for _, content in messages]
    try:
        render(contents, names)
    except Exception as error:  # a template is foreign code and may raise anything
        merged = _merge_system(messages)
        reason = str(error).rstrip(".")
        if merged is not None:
            try:
                render(merged[1], merged[0])
            except Exception as second:
                reason = str(second).rstrip(".")
            else:
                note = "The chat template refuses system messages, so their text stands in front of the next user's."
                if not any(content for role, content in messages if role == "system"):
                    note = "The chat template refuses system messages, so the empty one was left out."
                return *merged, [note]
        raise InputError(
            f"The chat template refuses this chat ({reason}); change the messages or their roles."
        ) from None
    return names, contents, [_Part(i, 0, len(c), i) for i, c in enumerate(contents)], []


def _merge_system(messages: Sequence[tuple[str, str]]) -> tuple[list[str], list[str], list[_Part]] | None:
    """Put the text of system messages in front of the next user message; None where there is none to do it with."""
    names: list[str] = []
    contents: list[str] = []
    parts: list[_Part] = []
    waiting: list[int] = []
    for number, (role, content) in enumerate(messages):
        if role == "system":
            waiting.append(number)
            continue
        slot, text = len(names), ""
        for earlier in waiting if role == "user" else ():
            if messages[earlier][1]:
                parts.append(_Part(slot, len(text), len(text) + len(messages[earlier][1]), earlier))
                text += messages[earlier][1] + JOINER
        waiting = [] if role == "user" else waiting
        parts.append(_Part(slot, len(text), len(text) + len(content), number))
        names.append(role)
        contents.append(text + content)
    return (names, contents, parts) if len(names) < len(messages) and not waiting else None


def _locate_all(
    render: Callable[[Sequence[str]], str], contents: Sequence[str], text: str, parts: Sequence[_Part]
) -> tuple[dict[int, list[Range]], list[str]]:
    """Find every message's content in the rendered text; messages without a part keep an empty list."""
    notes: list[str] = []
    together = _locate(render, contents, text, parts)
    found: dict[int, list[Range]] = {number: [] for number in range(max(p.message for p in parts) + 1)}
    last = 0
    for number, part in enumerate(parts):
        ranges = [] if together is None else together[number]
        if not ranges:
            ranges, remark = _locate_one(render, contents, text, part, last)
            notes += [remark] if remark else []
        found[part.message] += ranges
        last = max([last, *(end for _, end in ranges)])
    return found, notes


def _locate_one(
    render: Callable[[Sequence[str]], str], contents: Sequence[str], text: str, part: _Part, last: int
) -> tuple[list[Range], str]:
    """Find one part: whole, trimmed, around thinking tags, or at last by search after position `last`."""
    content = contents[part.slot]
    whole = _exact(render, contents, text, part)
    if whole:
        return whole, ""
    pieces, ranges, missing = _around_thinking(content, part), [], False
    if whole is None and pieces:
        for piece in pieces:
            here = _exact(render, contents, text, piece)
            missing = missing or not here
            ranges += here or []
        if ranges and missing:
            return ranges, f"The chat template leaves out the thinking span of message {part.message}."
        if ranges:
            return ranges, f"The chat template writes the thinking tags of message {part.message} itself."
    core = content[part.start : part.end].strip()
    if not core:
        return [], ""
    if whole is None and (at := text.find(core, last)) >= 0:
        return [(at, at + len(core))], (
            f"The chat template changes with message {part.message}, so its place was found by searching for its text."
        )
    return [], f"The text of message {part.message} does not appear as such in the prompt, so none of it is a unit."


def _exact(
    render: Callable[[Sequence[str]], str], contents: Sequence[str], text: str, part: _Part
) -> list[Range] | None:
    """Locate one part as it is or trimmed; an empty list if the template drops it, None if marks cannot tell."""
    content = contents[part.slot][part.start : part.end]
    left = part.start + len(content) - len(content.lstrip())
    right = max(left, part.start + len(content.rstrip()))
    for start, end in dict.fromkeys([(part.start, part.end), (left, part.end), (part.start, right), (left, right)]):
        ranges = _locate(render, contents, text, [_Part(part.slot, start, end, part.message)])
        if ranges is not None:
            return ranges[0]
    return None


def _around_thinking(content: str, part: _Part) -> list[_Part]:
    """Split a part at its thinking tags into those stretches that hold text."""
    pieces, start = [], part.start
    tags = list(THINKING.finditer(content, part.start, part.end))
    for end, after in [*(tag.span() for tag in tags), (part.end, part.end)]:
        if content[start:end].strip():
            pieces.append(_Part(part.slot, start, end, part.message))
        start = after
    return pieces if tags else []


def _locate(
    render: Callable[[Sequence[str]], str], contents: Sequence[str], text: str, parts: Sequence[_Part]
) -> list[list[Range]] | None:
    """Render with marks around the parts; None unless the text without marks is `text` and all marks come in pairs."""
    used = set(text).union(*contents)
    marks = [chr(c) for c in range(FIRST_MARK, FIRST_MARK + 2 * len(parts) + len(used)) if chr(c) not in used]
    marked = list(contents)
    # From the right, so that positions further left stay valid; neighbours may share a position.
    for number in sorted(range(len(parts)), key=lambda n: (parts[n].slot, parts[n].start), reverse=True):
        part = parts[number]
        old = marked[part.slot]
        wrapped = marks[2 * number] + old[part.start : part.end] + marks[2 * number + 1]
        marked[part.slot] = old[: part.start] + wrapped + old[part.end :]
    try:
        rendered = render(marked)
    except Exception:  # the template looks into its messages; other ways of finding them follow
        return None
    places: dict[str, list[int]] = {mark: [] for mark in marks[: 2 * len(parts)]}
    plain: list[str] = []
    for character in rendered:
        if character in places:
            places[character].append(len(plain))
        else:
            plain.append(character)
    if "".join(plain) != text:
        return None
    found = []
    for number in range(len(parts)):
        opened, closed = places[marks[2 * number]], places[marks[2 * number + 1]]
        if len(opened) != len(closed) or any(a > b for a, b in zip(opened, closed, strict=True)):
            return None
        found.append(list(zip(opened, closed, strict=True)))
    return found


def message_of_tokens(text: str, token_ranges: Sequence[Range], ranges: Sequence[Sequence[Range]]) -> tuple[int, ...]:
    """Return the message whose content each token holds, -1 for tokens that the template wrote.

    A token that holds characters of both belongs to the message, unless only spaces of a longer token are the
    message's; a token without characters goes by the token before it.
    """
    owner = [-1] * len(text)
    for number, spans in enumerate(ranges):
        for start, end in spans:
            owner[start:end] = [number] * (end - start)
    messages: list[int] = []
    for start, end in token_ranges:
        if start == end:
            messages.append(messages[-1] if messages else -1)
            continue
        held = [owner[i] for i in range(start, end) if not text[i].isspace()] or owner[start:end]
        messages.append(max((m for m in held if m >= 0), key=held.count, default=-1))
    return tuple(messages)
