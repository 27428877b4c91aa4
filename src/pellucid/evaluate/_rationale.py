"""Human rationales as units: character ranges, words of the text, or yes and no per unit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from pellucid.core.errors import InputError
from pellucid.core.params import Array
from pellucid.core.results import Scores

Span = tuple[int, int]


@dataclass(frozen=True)
class Judged:
    """Scores [units] and which units people marked [units]."""

    scores: np.ndarray
    marked: np.ndarray


def judged(scores: Scores, rationale: Sequence[Any] | Array) -> Judged:
    """Return the scores with the units of a rationale.

    Args:
        scores: one finite score per unit.
        rationale: (start, end) character ranges of the text, of which every unit that overlaps one is marked; words or
            phrases, of which every occurrence is; or one yes or no (1 or 0) per unit.

    Raises:
        InputError: other scores, or a rationale that does not fit the text or marks no unit.
    """
    values = np.asarray(scores.values, dtype=np.float64)
    if scores.axes != ("unit",) or not np.isfinite(values).all():
        raise InputError(
            f"Scores with the axes {scores.axes} were given, but a rationale is compared with one finite score per "
            "unit; take one target, or sum over targets."
        )
    given = list(cast("Sequence[Any]", rationale))
    if given and all(isinstance(one, str) for one in given):
        marked = _overlapping(scores, [span for one in given for span in _found(scores, one)])
    elif given and all(isinstance(one, tuple | list) and len(cast("list[Any]", one)) == 2 for one in given):
        marked = _overlapping(scores, [(int(one[0]), int(one[1])) for one in given])
    else:
        marked = np.array([float(one) for one in given]) > 0.5
        if len(marked) != len(values):
            raise InputError(f"The rationale has {len(marked)} entries for {len(values)} units; give one for each.")
    if not marked.any():
        raise InputError("The rationale marks no unit of the prompt; give ranges or words that lie in it.")
    return Judged(values, marked)


def chosen(judged: Judged, top: int | None) -> np.ndarray:
    """Return which units an explanation chooses, [units]: the `top` highest scores, None as many as are marked."""
    count = min(int(judged.marked.sum()) if top is None else top, len(judged.scores))
    found = np.zeros(len(judged.scores), dtype=bool)
    found[np.argsort(-judged.scores, kind="stable")[:count]] = True
    return found


def spans(mask: np.ndarray) -> list[Span]:
    """Return the runs of neighbouring units that a mask holds, as ranges [start, end)."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], mask.astype(int), [0]])))
    return [(int(start), int(end)) for start, end in edges.reshape(-1, 2)]


def f1(precision: float, recall: float) -> float:
    """Return the harmonic mean, 0 where both are 0."""
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def expected(judged: Judged, top: int | None, measure: str, draws: int, seed: int) -> float:
    """Return the mean of token F1 ("token") or of the F1 of spans ("span") over random choices of as many units."""
    rng, count = np.random.default_rng(seed), int(chosen(judged, top).sum())
    if measure == "token":  # hits are hypergeometric, so their mean is count * marked / units
        return 2 * count * judged.marked.mean() / (count + judged.marked.sum())
    found = []
    for _ in range(draws):
        random = np.zeros(len(judged.scores), dtype=bool)
        random[rng.permutation(len(random))[:count]] = True
        found.append(span_scores(random, judged.marked)[2])
    return float(np.mean(found)) if found else float("nan")


def span_scores(mask: np.ndarray, marked: np.ndarray, least: float = 0.5) -> tuple[float, float, float]:
    """Return precision, recall and F1 of spans: one is found where its intersection over union is `least` or more."""
    own, theirs = spans(mask), spans(marked)
    overlap = np.array([[_iou(first, second) for second in theirs] for first in own]).reshape(len(own), len(theirs))
    hits = overlap >= least
    precision = float(hits.any(1).mean()) if own else 0.0
    recall = float(hits.any(0).mean()) if len(own) else 0.0
    return precision, recall, f1(precision, recall)


def _iou(first: Span, second: Span) -> float:
    shared = max(0, min(first[1], second[1]) - max(first[0], second[0]))
    return shared / (first[1] - first[0] + second[1] - second[0] - shared)


def _text(scores: Scores) -> tuple[str, tuple[Span, ...], tuple[Span, ...]]:
    if scores.tokens is None or scores.units is None or scores.tokens.offsets is None:
        raise InputError(
            "Ranges and words need a text whose tokens know their characters, which these scores lack; give one yes or "
            "no per unit."
        )
    return scores.tokens.text, scores.tokens.offsets, scores.units.spans


def _found(scores: Scores, word: str) -> list[Span]:
    text = _text(scores)[0]
    inside = [(i, i + len(word)) for i in range(len(text)) if word and text.startswith(word, i)]
    whole = [(a, b) for a, b in inside if not text[a - 1 : a].isalnum() and not text[b : b + 1].isalnum()]
    if not whole:
        raise InputError(f"The word {word!r} of the rationale is not in the text; give it as it is written there.")
    return whole


def _overlapping(scores: Scores, ranges: list[Span]) -> np.ndarray:
    text, offsets, units = _text(scores)
    for start, end in ranges:
        if not 0 <= start < end <= len(text):
            raise InputError(f"The range ({start}, {end}) is not in the text of {len(text)} characters; correct it.")
    touched = [
        any(a < end and start < b for a, b in offsets[first:last] for start, end in ranges) for first, last in units
    ]
    return np.array(touched, dtype=bool)
