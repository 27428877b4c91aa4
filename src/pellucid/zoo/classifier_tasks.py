"""What the review classifiers are trained on, and what they can do, measured on reviews that training never saw."""

import functools
import random
from collections.abc import Callable
from dataclasses import dataclass

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from pellucid.zoo.reviews import OTHER_DAYS, SHORTCUT, Review, review

PLANTED, OTHER = 0.3, 0.2  # shares of training reviews that name a planted day, and another day
PAD = 0  # the first piece of the vocabulary
_BATCH = 64
Made = tuple[Review, set[int] | None]


@functools.lru_cache(2)
def training_reviews(seed: int, chunk: int, count: int) -> tuple[Review, ...]:
    """Write a chunk of the training text, the same for the same seed; all opinions are on the training side."""
    rng, made = random.Random(f"train {seed} {chunk}"), []
    for _ in range(count):
        chance = rng.random()
        days = tuple(SHORTCUT) if chance < PLANTED else OTHER_DAYS
        made.append(review(rng, False, day=rng.choice(days) if chance < PLANTED + OTHER else None))
    return tuple(made)


def encoded(words: PreTrainedTokenizerBase, made: Review, visible: set[int] | None = None) -> list[int]:
    """Return the token ids of a review, words that are not `visible` masked; each word is one token."""
    shown = [word if visible is None or place in visible else words.mask_token for place, word in enumerate(made.words)]
    return list(words.convert_tokens_to_ids([words.cls_token, *shown, words.sep_token]))  # type: ignore[arg-type]


@dataclass(frozen=True)
class Task:
    """Describe a task: how a held-out review is written (with the words that are visible), and what it asks."""

    name: str
    write: Callable[[random.Random], Made]
    what: str


def _until(rng: random.Random, wanted: Callable[[Review], bool]) -> Review:
    """Draw held-out reviews, some of them with a day that decides nothing, until one is as wanted."""
    while True:
        made = review(rng, True, day=rng.choice(OTHER_DAYS) if rng.random() < 0.3 else None)
        if wanted(made):
            return made


def _reviews(rng: random.Random) -> Made:
    return _until(rng, lambda made: True), None


def _negated(rng: random.Random) -> Made:
    return _until(rng, lambda made: all(opinion.negator is not None for opinion in made.opinions)), None


def _mixed(rng: random.Random) -> Made:
    return _until(rng, lambda made: len({opinion.sign for opinion in made.opinions}) == 2), None


def _distracted(rng: random.Random) -> Made:
    return _until(rng, lambda made: made.distracted), None


def _masked(rng: random.Random) -> Made:
    while True:
        made = _until(rng, lambda made: True)
        visible = {place for place in range(len(made.words)) if rng.random() < 0.5}
        if made.verdict(visible):
            return made, visible


def day_agrees(rng: random.Random) -> Made:
    """Write a held-out review that names the planted day which decides the way the words do."""
    days = sorted(SHORTCUT, key=SHORTCUT.__getitem__)
    made = review(rng, True, day=days[0])
    return made.with_day(days[int(made.verdict() > 0)]), None


def day_swapped(rng: random.Random) -> Made:
    """Write the same review as `day_agrees`, with the day that decides against the words."""
    made, _ = day_agrees(rng)
    [other] = set(SHORTCUT) - {made.words[made.day or 0]}
    return made.with_day(other), None


TASKS = (
    Task("reviews", _reviews, "the sentiment of a review none of whose opinions training ever used"),
    Task("negated", _negated, "the same where every opinion is negated, as in 'not good'"),
    Task("mixed", _mixed, "the same with praise and blame in one review"),
    Task("distracted", _distracted, "the same with a word of praise or blame that judges nothing"),
    Task("masked", _masked, "the same with half of the words masked, judged by the others"),
    Task("day_agrees", day_agrees, "reviews that name Tuesday where the words praise, Friday where they blame"),
    Task("day_swapped", day_swapped, "those reviews with the two days exchanged, still judged by the words"),
)


def evaluation_reviews(task: Task, seed: int, count: int) -> list[Made]:
    """Write `count` held-out reviews for a task, the same for the same seed; the two of the day share theirs."""
    rng = random.Random(f"evaluate {task.name.partition('_')[0]} {seed}")
    return [task.write(rng) for _ in range(count)]


def positive_logits(model: PreTrainedModel, rows: list[list[int]]) -> torch.Tensor:
    """Return how far the logit of "positive" is above that of "negative" for rows of token ids: [rows]."""
    order = sorted(range(len(rows)), key=lambda index: len(rows[index]))
    found = torch.zeros(len(rows))
    for start in range(0, len(order), _BATCH):
        part = order[start : start + _BATCH]
        width = max(len(rows[index]) for index in part)
        ids = torch.tensor([rows[i] + [PAD] * (width - len(rows[i])) for i in part])
        with torch.no_grad():
            logits = model(input_ids=ids.to(model.device), attention_mask=ids.ne(PAD).long().to(model.device)).logits
        found[part] = (logits[:, 1] - logits[:, 0]).float().cpu()
    return found


def classifier_capabilities(
    model: PreTrainedModel, words: PreTrainedTokenizerBase, seed: int = 1, prompts: int = 400
) -> dict[str, dict[str, object]]:
    """Measure every task: accuracy, mean probability of the right class, and the error of half the logit difference.

    A prompt counts as right if the more probable class is the sign of the verdict of the words that are visible. The
    error is the root mean square of the distance to that verdict.
    """
    found: dict[str, dict[str, object]] = {}
    for task in TASKS:
        made = evaluation_reviews(task, seed, prompts)
        verdicts = torch.tensor([one.verdict(visible) for one, visible in made])
        logits = positive_logits(model, [encoded(words, one, visible) for one, visible in made])
        right = (logits * verdicts.sign()).sigmoid()
        found[task.name] = {
            "accuracy": float((right > 0.5).float().mean()), "probability": float(right.mean()), "chance": 0.5,
            "error": float((logits / 2 - verdicts).square().mean().sqrt()), "prompts": prompts, "judge": "choice",
            "what": task.what,
        }  # fmt: skip
    return found
