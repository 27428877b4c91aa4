"""Inputs on which roles of heads and neurons show: repeated random tokens, needles in long contexts, ordered lists.

They are token ids, so that they suit any tokenizer. Texts begin as the tokenizer begins them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from pellucid.core.errors import CapabilityError, InputError
from pellucid.engine.token_losses import Text

if TYPE_CHECKING:
    from pellucid.models.subject import Subject

LISTS = (
    ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"),
    ("January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November"),
    ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"),
    ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth"),
    tuple(map(str, range(1, 31))),
    tuple("ABCDEFGHIJKLMNOPQRSTUVWXYZ"),
)


def causal(subject: Subject, method: str) -> None:
    """Raise `CapabilityError` for what is no causal language model."""
    if subject.kind != "decoder" or subject.head != "causal-lm":
        raise CapabilityError(
            f"{method} measures losses of texts token by token, but {subject.name} is no causal language model; use "
            "head_roles for attention alone."
        )


def ordinary(subject: Subject) -> np.ndarray:
    """Return the ids of tokens that are not special."""
    special = set(getattr(subject.tokenizer, "all_special_ids", None) or ()) | {subject.pad_id}
    return np.array([i for i in range(subject.vocabulary) if i not in special] or range(subject.vocabulary))


def beginning(subject: Subject) -> tuple[int, ...]:
    """Return the id that texts begin with, or nothing where the tokenizer has none."""
    found = getattr(subject.tokenizer, "bos_token_id", None)
    return (int(found),) if isinstance(found, int) and 0 <= found < subject.vocabulary else ()


def repeated(subject: Subject, length: int, count: int, rng: np.random.Generator) -> list[Text]:
    """Return random tokens that come twice; what counts is the second time, its first token left out.

    Shorter ones where the model takes no more. Tokens of one half differ where the vocabulary has as many.
    """
    start, words = beginning(subject), ordinary(subject)
    length = min(length, ((subject.max_length or 1 << 20) - len(start)) // 2)
    found = []
    for _ in range(count):
        half = tuple(int(i) for i in rng.choice(words, length, replace=len(words) < length))
        ids = (*start, *half, *half)
        found.append(Text(ids, tuple(range(len(ids) - length + 1, len(ids)))))
    return found


def needles(
    subject: Subject, length: int, context: int, count: int, rng: np.random.Generator
) -> list[tuple[Text, int]]:
    """Return random contexts that hold a key and a needle somewhere, and end in both again; and where the needle began.

    The key is one token. What counts is the needle at the end. Shorter ones where the model takes no more.
    """
    start, words = beginning(subject), ordinary(subject)
    room = (subject.max_length or 1 << 20) - len(start)
    length = min(length, room // 2 - 1)
    context = max(length + 1, min(context, room - length - 1))
    found = []
    for _ in range(count):
        drawn = [int(i) for i in rng.choice(words, context, replace=len(words) < context)]
        at = int(rng.integers(0, max(1, (context - length - 1) // 2)))  # in the first half, far from the end
        ids = (*start, *drawn, *drawn[at : at + length + 1])
        found.append((Text(ids, tuple(range(len(ids) - length, len(ids)))), len(start) + at + 1))
    return found


def in_order(subject: Subject, lists: Sequence[Sequence[str]]) -> list[list[int]]:
    """Return the token ids of every list whose words are single tokens, with a space in front or without.

    Lists are cut where a word is no single token; pieces of fewer than four words are left out.
    """
    pieces: list[list[int]] = []
    if subject.tokenizer is None:
        return pieces
    for words in lists:
        for front in (" ", ""):
            piece: list[int] = []
            for word in (*words, ""):
                ids = subject.tokenizer(front + word, add_special_tokens=False)["input_ids"] if word else []
                if len(ids) == 1 and ids[0] != getattr(subject.tokenizer, "unk_token_id", None):
                    piece.append(int(ids[0]))
                    continue
                if len(set(piece)) >= 4:
                    pieces.append(piece)
                piece = []
    return pieces


def lists_as_texts(subject: Subject, lists: Sequence[Sequence[int]], count: int) -> list[Text]:
    """Return beginnings of ordered lists, four words long; what counts is the fourth."""
    start = beginning(subject)
    windows = [tuple(ids[i : i + 4]) for ids in lists for i in range(len(ids) - 3)]
    step = max(1, len(windows) // count)
    return [Text((*start, *words), (len(start) + 3,)) for words in windows[::step][:count]]


def with_answers(subject: Subject, prompts: Sequence[str], answers: Sequence[str]) -> list[Text]:
    """Return prompts with their answers behind them; what counts is the answers.

    Raises:
        InputError: not as many answers as prompts, or an answer that is no token.
    """
    if len(prompts) != len(answers):
        raise InputError(f"There are {len(answers)} answers for {len(prompts)} prompts; give one each.")
    found = []
    for prompt, answer in zip(prompts, answers, strict=True):
        before = subject.encode(prompt).ids
        ids = subject.tokenizer(answer, add_special_tokens=False)["input_ids"]
        if not ids:
            raise InputError(f"The answer {answer!r} has no tokens; give the word that continues the prompt.")
        found.append(Text((*before, *map(int, ids)), tuple(range(len(before), len(before) + len(ids)))))
    return found
