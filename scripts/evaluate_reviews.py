"""Twelve methods by twelve metrics on 200 generated reviews for zoo:tiny-classifier, which words decide being known."""

from __future__ import annotations

import random
from typing import Any

import pellucid
from pellucid.zoo.reviews import Review, review
from scripts.evaluate_common import METHODS, METRICS, SETTINGS, out_folder, run

EXAMPLES, SEED = 200, 0
PLAUSIBILITY = ("token_f1", "iou_f1", "auprc")


def ranges(made: Review) -> list[tuple[int, int]]:
    """Return the character ranges of the words that the verdict follows from."""
    places, at = [], 0
    for word in made.words:
        start = made.text.lower().index(word, at)
        at = start + len(word)
        places.append((start, at))
    return [places[place] for place in made.rationale()]


def reviews(count: int, seed: int) -> list[dict[str, Any]]:
    """Return reviews whose opinions training never used, with their label and rationale."""
    rng = random.Random(seed)
    made = [review(rng, True) for _ in range(count)]
    return [{"text": one.text, "label": int(one.verdict() > 0), "rationale": ranges(one)} for one in made]


def main() -> None:
    """Run or go on."""
    run("reviews", pellucid.load("zoo:tiny-classifier"), reviews(EXAMPLES, SEED), out_folder(), methods=METHODS,
        metrics=(*METRICS, *PLAUSIBILITY), measure="prob", orders=3, settings=SETTINGS)  # fmt: skip


if __name__ == "__main__":
    main()
