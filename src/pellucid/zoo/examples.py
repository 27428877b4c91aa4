"""What every task writer returns, and the two small helpers they share."""

import random
from collections.abc import Sequence
from dataclasses import dataclass

from pellucid.zoo import world


@dataclass(frozen=True)
class Example:
    """Hold marked text, wrong continuations, right ones (none: the marked answer) and the loss weight off answers."""

    marked: str
    distractors: tuple[str, ...] = ()
    answers: tuple[str, ...] = ()
    rest: float = 0.05


def key_matches(key: str, held_out: bool) -> bool:
    """Say whether `key` lies on the wanted side of the line between training and evaluation."""
    return world.is_held_out(key) == held_out


def draw(rng: random.Random, words: Sequence[str]) -> str:
    """Draw one word."""
    return words[rng.randrange(len(words))]
