"""Scores of every head for every role, each with the texts whose loss needs that role."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pellucid.engine.head_patterns import patterns, role_places
from pellucid.engine.role_inputs import in_order, lists_as_texts, needles, ordinary, repeated, with_answers
from pellucid.engine.token_circuits import TokenCircuits
from pellucid.engine.token_losses import Text

if TYPE_CHECKING:
    from pellucid.models.subject import Subject

WORDS, NEEDLE = 32, 4


@dataclass(frozen=True, eq=False)
class Role:
    """A role: the heads' scores [layer, head], the texts whose loss needs it, and how far away each head looks."""

    name: str
    scores: np.ndarray
    texts: tuple[Text, ...]
    away: np.ndarray


def _here(name: str, scores: np.ndarray, texts: tuple[Text, ...]) -> Role:
    """Return a role that is no place to look at."""
    return Role(name, scores, texts, np.zeros(scores.shape, dtype=int))


def head_role_scores(
    subject: Subject, prompts: Sequence[str], answers: Sequence[str], lists: Sequence[Sequence[str]],
    sizes: tuple[int, int, int, int], rng: np.random.Generator,
) -> list[Role]:  # fmt: skip
    """Return every role for which there are inputs.

    Scores lie from 0 to 1 and are exact for the inputs drawn: shares of attention, or of tokens.

    Args:
        subject: a pre-norm causal language model.
        prompts: texts that hold an answer; without any, no name movers.
        answers: what continues each prompt.
        lists: words in order; without any that are single tokens, no successors.
        sizes: random tokens that are repeated, tokens around a needle, random texts, and how far roles may look.
        rng: draws the texts.

    Raises:
        InputError: not as many answers as prompts.
        CapabilityError: a model that is no pre-norm causal language model.
    """
    length, context, samples, reach = sizes
    twice = tuple(repeated(subject, length, samples, rng))
    roles = _looking(subject, twice, reach)
    words = [int(i) for i in rng.choice(ordinary(subject), min(WORDS, len(ordinary(subject))), replace=False)]
    circuits = TokenCircuits(subject)
    roles.append(_here("copying", circuits.hits(words, words), twice))
    orders = in_order(subject, lists)
    following = lists_as_texts(subject, orders, samples)
    if following:
        found = [circuits.hits(ids[:-1], ids[1:], among=ids) * (len(ids) - 1) for ids in orders]
        roles.append(_here("successor", np.sum(found, 0) / sum(len(ids) - 1 for ids in orders), tuple(following)))
    hidden = needles(subject, min(NEEDLE, length), context, samples, rng)
    roles.append(_here("retrieval", _retrieved(subject, hidden), tuple(text for text, _ in hidden)))
    named = with_answers(subject, prompts, answers)
    if named:
        roles.append(_here("name mover", np.mean([circuits.moved(text) for text in named], 0), tuple(named)))
    return roles


def _looking(subject: Subject, texts: tuple[Text, ...], reach: int) -> list[Role]:
    """Return the roles that are a place to look at, from texts whose tokens come twice."""
    half = len(texts[0].scored) + 1
    aways = range(1, 1 + max(1, min(reach, (half - 1) // 2)))  # further away, "before" and "after" are the same places
    shares: dict[str, list[np.ndarray]] = {}
    for text in texts:
        found = np.stack(list(patterns(subject, subject.encode(list(text.ids))).values()))
        later = (np.arange(len(text.ids)) >= text.scored[0])[:, None]
        for name in ("previous", "duplicate", "induction"):
            places = np.stack([role_places(text.ids, away)[name] & later for away in aways])
            shares.setdefault(name, []).append(
                np.einsum("lhqk,aqk->alh", found, places) / places.any(2).sum(1)[:, None, None]
            )
    means = {name: np.mean(values, 0) for name, values in shares.items()}
    return [Role(name, mean.max(0), texts, mean.argmax(0) + 1) for name, mean in means.items()]


def _retrieved(subject: Subject, hidden: Sequence[tuple[Text, int]]) -> np.ndarray:
    """Return the share of needle tokens that each head attends to most while they are repeated: [layer, head]."""
    shares = []
    for text, at in hidden:
        queries = [p - 1 for p in text.scored]
        found = np.stack(list(patterns(subject, subject.encode(list(text.ids))).values()))[:, :, queries]
        shares.append((found.argmax(-1) == at + np.arange(len(queries))).mean(-1))
    return np.mean(shares, 0)
