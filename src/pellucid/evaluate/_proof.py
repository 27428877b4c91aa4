"""The two tables of a proof: figures before and after, and what the model says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pellucid.core.results import Evidence, Table
from pellucid.engine.edit_cases import EditCase, following, kinds
from pellucid.evaluate._edits import Asked, ask_both
from pellucid.models.subject import Subject

COLUMNS = ("judged", "figure", "before", "after", "change", "low", "high", "better")
BEATS, TRUE_BEATS = "new answer beats the true one", "true answer beats the new one"
FREELY = ("says", "new answer is said freely", "higher")
LIKELIEST = ("exact", "new answer is the likeliest", "higher")
FIGURES: dict[str, tuple[tuple[str, str, str], ...]] = {
    "efficacy": (("value", BEATS, "higher"), LIKELIEST, FREELY, ("magnitude", "p(new) - p(true)", "higher")),
    "generality": (("value", BEATS, "higher"), LIKELIEST, FREELY),
    "locality": (("value", TRUE_BEATS, "higher"), ("exact", "true answer is the likeliest", "higher"),
                 ("same", "same likeliest next token", "higher"), ("unchanged", "same text said freely", "higher"),
                 ("kl", "KL of next token, nats", "lower")),
    "score": (("value", "harmonic mean of these", "higher"),),
    "entropy": (("value", "n-gram entropy, bits", "higher"), ("words", "words per text", "")),
    "side effects": (("value", "KL per neutral token, nats", "lower"),
                     ("perplexity", "perplexity of neutral text", "lower")),
}  # fmt: skip
FOLLOWING = (("exact", "what follows is the likeliest", "higher"), ("says", "what follows is said freely", "higher"))


def consequences(subject: Subject, edited: Subject, cases: Sequence[EditCase], length: int) -> dict[str, Asked]:
    """Return the answers to what follows from the facts, by kind."""
    return {kind: ask_both(subject, edited, following(cases, kind), len(cases), length) for kind in kinds(cases)}


def rows_of(checks: Mapping[str, Evidence]) -> tuple[tuple[Any, ...], ...]:
    """Return one row per figure, to three digits: before, after, the change with its interval, which way is better."""
    rows = []
    for name, check in checks.items():
        for figure, words, better in FIGURES.get(name, FOLLOWING):
            if figure in check.values:
                numbers = (float(f"{number:.3g}") for number in _numbers(name, figure, check.values))
                rows.append((name, words, *numbers, better))
    return tuple(rows)


def _numbers(name: str, figure: str, values: Mapping[str, float]) -> tuple[float, ...]:
    after, front = values[figure], "" if figure == "value" else f"{figure}_"
    if name == "side effects" and figure == "value":  # a divergence from the model before: 0 there by definition
        return 0.0, after, after, values["low"], values["high"]
    before = values[f"{front}before"]
    low, high = (values.get(f"{front}change_{end}", np.nan) for end in ("low", "high"))
    return before, after, after - before, low, high


def said(asked: Mapping[str, Asked], most: int) -> tuple[Table, ...]:
    """Return what the model says freely before and after, `most` prompts of each kind; nothing if it was not asked."""
    rows = [
        (name, question.prompt, question.answer, *(text.strip() for text in both))
        for name, own in asked.items()
        for question, both in list(zip(own.questions, own.said, strict=False))[:most]
    ]
    if not rows:
        return ()
    columns = ("judged", "prompt", "right now", "said before", "said after")
    return (Table(title="What the model says", columns=columns, rows=tuple(rows)),)
