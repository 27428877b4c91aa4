"""What a language model that explains another one is shown and asked, and how its answer is read."""

from __future__ import annotations

import re

import numpy as np

from pellucid.core.params import Replacement
from pellucid.engine.question import Question

ASKED: dict[str, str] = {
    "perturbation": "Judge from these changes alone which words the number depends on most.",
    "prediction": "First predict the number for each of the held-out lines from the others, then say which words "
    "your predictions used most.",
    "instruction": "Go step by step. 1: for each word compare the lines that have it with those that lack it. 2: write "
    "down how much the number changes. 3: sort the words by the size of that change.",
    "explanation": "The worked examples show, for other versions of the text, which words the number depends on most.",
}


def _lines(masks: np.ndarray, scores: np.ndarray | list[str]) -> list[str]:
    shown = [f"{s:.4g}" if isinstance(s, float) else str(s) for s in list(scores)]
    return [f"{' '.join('1' if here else '0' for here in mask)} -> {s}" for mask, s in zip(masks, shown, strict=True)]


def request_text(
    question: Question, masks: np.ndarray, scores: np.ndarray, prompting: str, top: int, worked: str
) -> str:
    """Return what the generator is asked."""
    words = "\n".join(f"{i + 1}: {label.strip()!r}" for i, label in enumerate(question.units.labels))
    held = max(1, len(masks) // 4) if prompting == "prediction" else 0
    known = _lines(masks[: len(masks) - held], scores[: len(masks) - held])
    open_lines = _lines(masks[len(masks) - held :], ["?"] * held)
    parts = [
        "A model gives a number for a text. Here are the numbered words of one text:",
        words,
        "Each line below is a version of the text: 1 where the word of that place is there, 0 where it was removed, "
        "then the number.",
        "\n".join(known),
    ]
    if held:
        parts += ["Held-out lines:", "\n".join(open_lines)]
    parts += [worked] if worked else []
    parts += [
        ASKED[prompting],
        f"Name the {top} words the number depends on most, the most important first. End with one line of the form "
        f"'Answer: ' and their {top} word numbers with commas between them.",
    ]
    return "\n".join(parts) + "\n"


def worked_examples(question: Question, removal: Replacement, top: int, rng: np.random.Generator) -> str:
    """Return two worked examples: other versions of the text, explained by leaving out each of their words."""
    count, shown = len(question.units), ["Worked examples:"]
    for present in rng.random((2, count)) < 0.8:
        masks = np.repeat(present[None], count + 1, 0)
        masks[np.arange(1, count + 1), np.arange(count)] = False
        scores = question.score(masks, removal).sum(1)
        drop = np.where(present, np.abs(scores[0] - scores[1:]), -1.0)
        best = [str(int(i) + 1) for i in np.argsort(-drop, kind="stable")[:top] if present[i]]
        shown += [*_lines(masks[:1], scores[:1]), f"Answer: {', '.join(best)}"]
    return "\n".join(shown)


def named_units(text: str, count: int, top: int) -> list[int]:
    """Return the units that the last line with an answer names, in order, each once."""
    lines = [line for line in text.splitlines() if re.search(r"\d", line)]
    answers = [line for line in lines if "answer" in line.lower()] or lines
    if not answers:
        return []
    numbers = [int(n) - 1 for n in re.findall(r"\d+", re.split(r"(?i)answer\s*:?", answers[-1])[-1])]
    return [n for n in dict.fromkeys(numbers) if 0 <= n < count][:top]
