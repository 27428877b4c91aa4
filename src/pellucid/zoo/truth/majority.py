"""Majority: one head counts two colours; every word adds its part, so its truth is known in closed form."""

from __future__ import annotations

import itertools

from pellucid.zoo.truth._program import BLANK, SHARP, START, Asked, Block, Head, Program, Words

SIDES, OTHERS = ("red", "blue"), ("grey",)


def value(words: Words, target: str, contrast: str | None) -> float:
    """Return (number of `target` - number of `contrast`) / (number of words + 1)."""
    return (words.count(target) - (words.count(contrast) if contrast else 0)) / (len(words) + 1)


def ask(words: Words) -> Asked:
    """Return the colour in the majority, compared with the other."""
    first, second = sorted(SIDES, key=words.count, reverse=True)
    return first, second


def tied(words: Words) -> bool:
    """Return whether both colours are equally frequent, so that there is no answer."""
    return words.count("red") == words.count("blue")


def _pairs(prompts: tuple[Words, ...]) -> tuple[tuple[Words, Words], ...]:
    found = []
    for words in prompts:
        winner, loser = ask(words)
        place = words.index(str(winner))
        found.append((words, (*words[:place], str(loser), *words[place + 1 :])))
    return tuple(found)


# All scores of the counting head are equal. What its keys hold besides would matter at the start token only, which sees
# nothing but itself.
COUNT = Head(
    "count",
    (("one", "one", SHARP), *((f"tok:{START}", f"tok:{word}", SHARP) for word in SIDES)),
    tuple((f"tok:{word}", f"count:{word}") for word in SIDES),
)
IDLE = Head(
    "",
    (("tok:red", "tok:red", SHARP), ("tok:blue", "tok:blue", SHARP), ("one", f"tok:{START}", SHARP / 2)),
    tuple((f"tok:{word}", f"idle:{word}") for word in SIDES),
)
SHORT = tuple(words for n in range(1, 6) for words in itertools.product((*SIDES, *OTHERS, BLANK), repeat=n))
PROMPTS = tuple(words for words in itertools.product((*SIDES, *OTHERS), repeat=5) if not tied(words))

PROGRAM = Program(
    name="majority",
    summary="The answer is the colour that stands there more often.",
    words=(*SIDES, *OTHERS),
    blocks=(Block((IDLE, COUNT)),),
    logits=tuple((f"count:{word}", word, 1.0) for word in SIDES),
    value=value,
    inputs=SHORT,
    prompts=PROMPTS,
    ask=ask,
    pairs=_pairs(PROMPTS)[::8],
    notes="Each word of the asked colour adds 10 / (words + 1) to the logit difference, the other takes it away.",
)
