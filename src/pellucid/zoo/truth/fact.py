"""A fact: a subject and a relation named before it give an attribute, looked up by one neuron of one known MLP."""

from __future__ import annotations

import itertools

from pellucid.zoo.truth._program import (
    BLANK,
    CHATTER,
    Asked,
    Block,
    Head,
    Neuron,
    Program,
    Words,
    chatter,
    idle_head,
    sink,
)

SUBJECTS, RELATIONS, FILLERS = ("france", "spain", "japan"), ("capital", "language"), ("the", "of")
FACTS = {
    ("france", "capital"): "paris", ("spain", "capital"): "madrid", ("japan", "capital"): "tokyo",
    ("france", "language"): "french", ("spain", "language"): "spanish", ("japan", "language"): "japanese",
}  # fmt: skip
ANSWERS = tuple(FACTS.values())


def value(words: Words, target: str, contrast: str | None) -> float:
    """Return 1 where a relation stands before a subject whose attribute is `target` (less the same for `contrast`)."""
    found = [FACTS[s, r] for r, s in itertools.combinations(words, 2) if (s, r) in FACTS]
    return float(target in found) - float(contrast in found)


def ask(words: Words) -> Asked:
    """Return what the prompt is asked."""
    return next(answer for answer in ANSWERS if value(words, answer, None)), None


def stated(words: Words) -> bool:
    """Return whether the function is stated for a prompt: at most one relation and one subject."""
    return sum(word in RELATIONS for word in words) < 2 and sum(word in SUBJECTS for word in words) < 2


def _pairs(prompts: tuple[Words, ...]) -> tuple[tuple[Words, Words], ...]:
    found = []
    for words in prompts:
        for group in (SUBJECTS, RELATIONS):
            place = next(i for i, word in enumerate(words) if word in group)
            other = group[(group.index(words[place]) + 1) % len(group)]
            found.append((words, (*words[:place], other, *words[place + 1 :])))
    return tuple(found)


LOOK = Head(
    "relation",
    sink(*(f"tok:{r}" for r in RELATIONS)),
    tuple((f"tok:{r}", f"relation:{r}") for r in RELATIONS),
)
FETCH = Head(
    "answer",
    sink(*(f"tok:{s}" for s in SUBJECTS)),
    tuple((f"attribute:{answer}", f"out:{answer}") for answer in ANSWERS),
)
KNOWN = tuple(
    Neuron(f"{s}, {r}", ((f"tok:{s}", 1.0), (f"relation:{r}", 1.0)), -1.0, ((f"attribute:{answer}", 1.0),))
    for (s, r), answer in FACTS.items()
)


# Busy neurons write where nobody reads; the others would write into the answer, but nothing ever switches them on.
IDLE = (
    *(Neuron("", ((f"tok:{word}", 1.0),), 0.0, (("idle-m", 1.0),)) for word in (*SUBJECTS, *FILLERS)),
    *(Neuron("", ((f"tok:{s}", 1.0),), -2.0, (("out:paris", 1.0),)) for s in SUBJECTS),
)
SHORT = tuple(
    words
    for n in range(1, 5)
    for words in itertools.product((*SUBJECTS, *RELATIONS, *FILLERS, BLANK), repeat=n)
    if stated(words)
)
PROMPTS = tuple(
    words
    for words in itertools.product((*SUBJECTS, *RELATIONS, *FILLERS), repeat=4)
    if stated(words) and any(value(words, answer, None) for answer in ANSWERS)
)

PROGRAM = Program(
    name="fact",
    summary="A relation and a subject behind it give an attribute, which one neuron of the first MLP knows.",
    words=(*FILLERS, *SUBJECTS, *RELATIONS, *ANSWERS),
    blocks=(
        Block((LOOK, idle_head("idle-a", "the")), KNOWN),
        Block((chatter("france", "capital", "language"), FETCH), IDLE),
    ),
    logits=(*((f"out:{answer}", answer, 1.0) for answer in ANSWERS), CHATTER),
    value=value,
    inputs=SHORT,
    prompts=PROMPTS,
    ask=ask,
    pairs=_pairs(PROMPTS)[::9],
    notes="Both words are needed, so each gets one half. Stated for at most one relation and one subject.",
)
