"""Redundancy: any one of several words suffices, and two heads find it, either of which would do."""

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

SIGNAL, OTHERS = "alarm", ("calm", "quiet")
MORE = ("night", "day", "wind", "rain", "sea", "sky")


def value(words: Words, target: str, contrast: str | None) -> float:
    """Return 1 where the signal stands anywhere in the prompt."""
    found = float(SIGNAL in words)
    return found * ((target == SIGNAL) - (contrast == SIGNAL))


def ask(words: Words) -> Asked:
    """Return what the prompt is asked."""
    return SIGNAL, None


def _finder(role: str, name: str) -> Head:
    return Head(role, sink(f"tok:{SIGNAL}"), ((f"tok:{SIGNAL}", f"{name}:{SIGNAL}"),))


REPORT = Head(
    "report",
    sink(f"found:{SIGNAL}"),
    ((f"found:{SIGNAL}", f"out:{SIGNAL}"),),
)
EITHER = tuple((f"{name}:{SIGNAL}", 1.0) for name in ("first", "second"))
NEURONS = (
    Neuron("one or both", EITHER, 0.0, ((f"found:{SIGNAL}", 1.0),)),
    Neuron("takes back the second", EITHER, -1.0, ((f"found:{SIGNAL}", -1.0),)),
    Neuron("", (("tok:quiet", 1.0),), 0.0, (("idle-m", 1.0),)),
)
SHORT = tuple(words for n in range(1, 5) for words in itertools.product((SIGNAL, *OTHERS, *MORE, BLANK), repeat=n))
PROMPTS = tuple(words for words in itertools.product((SIGNAL, *OTHERS), repeat=4) if 0 < words.count(SIGNAL) < 4)

PROGRAM = Program(
    name="redundant",
    summary="The answer is `alarm` wherever that word stands in the prompt; two heads look for it, one is enough.",
    words=(*OTHERS, *MORE[:4], SIGNAL, *MORE[4:]),
    blocks=(
        Block(
            (_finder("first finder", "first"), idle_head("idle-a", "calm"), _finder("second finder", "second")), NEURONS
        ),
        Block((idle_head("idle-b", "quiet"), REPORT, chatter("wind", "alarm", "sky"))),
    ),
    logits=((f"out:{SIGNAL}", SIGNAL, 1.0), CHATTER),
    value=value,
    inputs=SHORT,
    prompts=PROMPTS,
    ask=ask,
    pairs=tuple((words, tuple("calm" if word == SIGNAL else word for word in words)) for words in PROMPTS[::2]),
    redundant=True,
    notes="Where two signals stand, removing one changes nothing; so it is with the two finders.",
)
