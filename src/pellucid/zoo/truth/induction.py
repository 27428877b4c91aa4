"""Induction: find where the last word stood before, and say what followed it there."""

from __future__ import annotations

import itertools

from pellucid.zoo.truth._program import (
    BLANK,
    CHATTER,
    FALLBACK,
    LONGEST,
    SHARP,
    START,
    Asked,
    Block,
    Head,
    Program,
    Words,
    chatter,
    idle_head,
)

WORDS = ("red", "blue", "green", "gold", "pink", "grey", "brown", "black", "white")


def value(words: Words, target: str, contrast: str | None) -> float:
    """Return the share of earlier places of the last word that were followed by `target`."""
    followed = [words[i] for i in range(1, len(words)) if words[i - 1] == words[-1] and words[-1] in WORDS]
    shares = {word: followed.count(word) / max(1, len(followed)) for word in WORDS}
    return shares[target] - (shares[contrast] if contrast else 0.0)


def answers(words: Words) -> tuple[str, ...]:
    """Return the words with the largest share: one where the prompt has an answer."""
    shares = {word: value(words, word, None) for word in WORDS}
    return tuple(word for word in WORDS if shares[word] == max(shares.values()) > 0)


def ask(words: Words) -> Asked:
    """Return what the prompt is asked."""
    return answers(words)[0], None


PREVIOUS = Head(
    "previous word",
    tuple((f"pos:{i}", f"pos:{i - 1}", SHARP) for i in range(1, LONGEST)),
    tuple((f"tok:{word}", f"prev:{word}") for word in WORDS),
)
FOLLOWER = Head(
    "induction",
    (*((f"tok:{word}", f"prev:{word}", SHARP) for word in WORDS), ("one", f"tok:{START}", FALLBACK)),
    tuple((f"tok:{word}", f"out:{word}") for word in WORDS),
)


SHORT = (
    *(words for n in range(1, 5) for words in itertools.product((*WORDS, BLANK), repeat=n)),
    *itertools.product((*WORDS[:3], BLANK), repeat=5),
)
PROMPTS = tuple(words for words in itertools.product(WORDS[:3], repeat=5) if len(answers(words)) == 1)
PAIRS = tuple(
    (words, (*words[:i], other, *words[i + 1 :]))
    for words in PROMPTS
    for i in range(5)
    for other in WORDS[:3]
    if other != words[i] and value((*words[:i], other, *words[i + 1 :]), ask(words)[0], None) == 0
)

PROGRAM = Program(
    name="induction",
    summary="The last word is looked up among the earlier words, and what followed it there is the answer.",
    words=WORDS,
    blocks=(Block((PREVIOUS, idle_head("idle-a", "red"))), Block((chatter("pink", "brown", "white"), FOLLOWER))),
    logits=(*((f"out:{word}", word, 1.0) for word in WORDS), CHATTER),
    value=value,
    inputs=SHORT,
    prompts=PROMPTS,
    ask=ask,
    pairs=PAIRS[::20],
    notes="Several earlier places share the answer; where there is none, the start token is attended to instead.",
)
