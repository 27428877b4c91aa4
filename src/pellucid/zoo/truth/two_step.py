"""Two steps: a person gives a city in the first block, and the city a country in the second, if it is asked for."""

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

HOME = {"ann": "rome", "bob": "oslo", "eve": "lima"}
LAND = {"rome": "italy", "oslo": "norway", "lima": "peru"}
QUESTIONS, FILLERS = ("city", "country"), ("the", "in")
ANSWERS = (*LAND, *LAND.values())


def value(words: Words, target: str, contrast: str | None) -> float:
    """Return 1 where the last word asks for a city or country, a person stands before it, and theirs is `target`."""
    homes = [HOME[word] for word in words if word in HOME]
    found = {"city": homes, "country": [LAND[home] for home in homes]}.get(words[-1], [])
    return float(target in found) - float(contrast in found)


def ask(words: Words) -> Asked:
    """Return what the prompt is asked."""
    return next(answer for answer in ANSWERS if value(words, answer, None)), None


def stated(words: Words) -> bool:
    """Return whether the function is stated for a prompt: at most one person."""
    return sum(word in HOME for word in words) < 2


def _pairs(prompts: tuple[Words, ...]) -> tuple[tuple[Words, Words], ...]:
    people = tuple(HOME)
    found = []
    for words in prompts:
        place = next(i for i, word in enumerate(words) if word in HOME)
        other = people[(people.index(words[place]) + 1) % len(people)]
        found.append((words, (*words[:place], other, *words[place + 1 :])))
        found.append((words, (*words[:-1], QUESTIONS[1 - QUESTIONS.index(words[-1])])))
    return tuple(found)


FETCH = Head(
    "person",
    sink(*(f"tok:{person}" for person in HOME)),
    tuple((f"home:{city}", f"here:{city}") for city in LAND),
)
FIRST = tuple(Neuron(f"{p} -> {c}", ((f"tok:{p}", 1.0),), 0.0, ((f"home:{c}", 1.0),)) for p, c in HOME.items())
SECOND = tuple(
    Neuron(f"{city} -> {answer}", ((f"here:{city}", 1.0), (f"tok:{question}", 1.0)), -1.0, ((f"out:{answer}", 1.0),))
    for city, land in LAND.items()
    for question, answer in zip(QUESTIONS, (city, land), strict=True)
)
BUSY = tuple(Neuron("", ((f"tok:{word}", 1.0),), 0.0, (("idle-m", 1.0),)) for word in (*HOME, *FILLERS))


SHORT = tuple(
    words
    for n in range(1, 5)
    for words in itertools.product((*HOME, *QUESTIONS, *FILLERS, BLANK), repeat=n)
    if stated(words)
)
PROMPTS = tuple(
    (*words, question)
    for words in itertools.product((*HOME, *FILLERS), repeat=3)
    if sum(word in HOME for word in words) == 1
    for question in QUESTIONS
)

PROGRAM = Program(
    name="two-step",
    summary="A person gives a city in the first block, and the city a country in the second, if it is asked for.",
    words=(*FILLERS, *HOME, *QUESTIONS, *ANSWERS),
    blocks=(
        Block((idle_head("idle-a", "the"), idle_head("idle-b", "ann")), (*FIRST, *BUSY)),
        Block((FETCH, chatter("eve", "country", "city")), (*SECOND, *BUSY)),
    ),
    logits=(*((f"out:{answer}", answer, 1.0) for answer in ANSWERS), CHATTER),
    value=value,
    inputs=SHORT,
    prompts=PROMPTS,
    ask=ask,
    pairs=_pairs(PROMPTS)[::7],
    notes="Only the person and the last word, which asks, matter. Stated for at most one person.",
)
