"""A direction of sentiment: read from reviews, added in doses, taken out, and judged on reviews that it never saw."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import stats

from pellucid.core.results import Evidence, Learned, Result, Table
from pellucid.engine.cone import score_edits
from pellucid.engine.steering import Steering
from pellucid.engine.targets import resolve
from pellucid.evaluate.side_effects import side_effects
from pellucid.methods.steering.dose_response import dose_response
from pellucid.methods.steering.mean_difference import mean_difference
from pellucid.methods.steering.monitored_tokens import monitored_tokens
from pellucid.models.edits import Edit
from pellucid.models.subject import Subject
from pellucid.zoo import chats

QUESTION, PRAISE, BLAME = "{review} Sentiment:", " positive", " negative"
RANDOM, NEUTRAL = 3, 16  # random directions beside the one that was read; texts on which each dose is measured
COLUMNS = ("what is taken out", "right answers", "low", "high", "margin", "KL on neutral text (nats)")


def reviews(count: int, held_out: bool, seed: int) -> tuple[list[str], list[str]]:
    """Return prompts that ask for the sentiment of different reviews: `count` of praise and `count` of blame.

    Sentences that are held out never occur in reviews that are not.
    """
    rng, found = random.Random(seed), dict[str, list[str]](positive=[], negative=[])
    while min(map(len, found.values())) < count:
        text, mood, _ = chats.review(rng, held_out)
        prompt = QUESTION.format(review=text)
        if len(found[mood]) < count and prompt not in found[mood]:
            found[mood].append(prompt)
    return found["positive"], found["negative"]


def sentiment(
    subject: Subject, neutral: Sequence[Any], count: int, seed: int
) -> tuple[list[Result], list[Evidence], list[str]]:
    """Return pictures, checks and sentences of a direction of sentiment that is read, added and taken out.

    Args:
        subject: a causal language model with a tokenizer.
        neutral: texts that are not about sentiment.
        count: reviews of praise, and of blame, that it is read from; as many others are judged.
        seed: of reviews, split and random directions.
    """
    learned = mean_difference(subject, *reviews(count, False, seed), seed=seed)
    layer = int(learned.settings["layer"])
    praise, blame = reviews(count, True, seed)
    seen = monitored_tokens(subject, blame[0], learned)
    doses = dose_response(
        subject, [*praise, *blame], learned, neutral=neutral[:NEUTRAL], target=PRAISE, contrast=BLAME,
        random_directions=RANDOM, seed=seed,
    )  # fmt: skip
    table, check = taken_out(subject, learned, praise, blame, neutral[:NEUTRAL], seed)
    results = [
        dataclasses.replace(seen, title=f"What the direction of layer {layer} reads in a review of blame"),
        *(dataclasses.replace(one, title=f"Steered: {one.title}") for one in doses.results),
        table,
    ]
    notes = [f"Steered along the direction of layer {layer}. {note}" for note in doses.notes]
    return results, [*learned.evidence, *doses.evidence, check], [*notes, check.summary]


def taken_out(
    subject: Subject, learned: Learned, praise: Sequence[str], blame: Sequence[str], neutral: Sequence[Any], seed: int
) -> tuple[Table, Evidence]:
    """Return how many reviews are still judged rightly without the direction, in one layer or in all, and a check.

    Beside it random directions, taken out of all layers. The margin is how far the right answer lies above the other
    one, in logits (answers of several tokens: nats), a mean over reviews.
    """
    layer, every = int(learned.settings["layer"]), [int(one) for one in learned.settings["layers"]]
    rng, shape = np.random.default_rng(seed), learned.tensors["directions"].shape
    drawn = [dataclasses.replace(learned, tensors={**learned.tensors, "directions": _unit(rng.standard_normal(shape))})
             for _ in range(RANDOM)]  # fmt: skip
    groups: list[tuple[str, list[tuple[Edit, ...]]]] = [
        ("nothing", [()]),
        (f"the direction, in layer {layer}", [_without(subject, learned, [layer])]),
        ("the directions of all layers", [_without(subject, learned, every)]),
        ("random directions, in all layers", [_without(subject, one, every) for one in drawn]),
    ]
    margins = _margins(subject, [one for _, some in groups for one in some], praise, blame)
    rows, right, start = list[tuple[Any, ...]](), list[float](), 0
    for name, some in groups:
        own = margins[start : start + len(some)]
        start += len(some)
        right.append(float((own > 0).mean()))
        ends = stats.binomtest(round(right[-1] * own.shape[1]), own.shape[1]).proportion_ci(method="wilson")
        moved = np.mean([side_effects(subject, subject.with_(*one), neutral).values["value"] for one in some])
        rows.append(
            (name, *(float(f"{x:.3g}") for x in (right[-1], ends.low, ends.high, float(own.mean()), float(moved))))
        )
    whole, one, all_, chance = right
    check = Evidence(
        "sentiment without its direction",
        f"Of {margins.shape[1]} reviews that the direction was not read from, the model judges {100 * whole:.0f} % "
        f"rightly; with the direction taken out of layer {layer} {100 * one:.0f} %, with those of all layers out "
        f"{100 * all_:.0f} % (half is guessing), with random ones out {100 * chance:.0f} %.",
        {"right": whole, "without one": one, "without all": all_, "without random": chance},
        ok=whole > 0.5 and all_ < chance,
    )
    return Table(title="Taken out: what is left of the model's judgement", columns=COLUMNS, rows=tuple(rows)), check


def _without(subject: Subject, learned: Learned, layers: Sequence[int]) -> tuple[Edit, ...]:
    return Steering(learned, operation="ablate", layers=layers).edits(subject)


def _margins(
    subject: Subject, sets: Sequence[tuple[Edit, ...]], praise: Sequence[str], blame: Sequence[str]
) -> np.ndarray:
    """Return how far the right answer lies above the wrong one under each set of edits: [set, review]."""
    found = []
    for sign, prompts in ((1.0, praise), (-1.0, blame)):
        for prompt in prompts:
            tokens = subject.encode(prompt)
            readout = resolve(subject, tokens, PRAISE, BLAME)
            found.append(sign * score_edits(subject, tokens, readout, sets).sum(1))
    return np.stack(found, axis=1)


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)
