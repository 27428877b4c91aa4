"""The queries that tell whether entities and attributes are tied by vectors, and how a model answers them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from pellucid.core.errors import InputError
from pellucid.engine.binding_contexts import Context, Names, World
from pellucid.engine.planning import in_batches
from pellucid.models.batch import Row
from pellucid.models.edits import Edit
from pellucid.models.forward import forward


@dataclass(frozen=True, eq=False)
class Asked:
    """A query under edits, the attribute expected, all that are in play, and what the test expects in a word."""

    ids: tuple[int, ...]
    edits: tuple[Edit, ...]
    answer: str
    choices: tuple[str, ...]
    expected: str


def another(one: Context, others: Sequence[Context], kind: str) -> Context:
    """Return another context whose first entity (or attribute) this one does not have."""
    for other in others:
        if other.names(kind)[0] not in one.names(kind):
            return other
    raise InputError(f"No context with another {kind} than {one.names(kind)} was drawn; give more names or contexts.")


def binding_tests(
    one: Context, new: dict[str, Context], differences: dict[str, torch.Tensor]
) -> dict[str, list[Asked]]:
    """Return for every test the two queries of a context."""

    def ask(edits: tuple[Edit, ...], expected: str, entities: Names | None = None, answers: Names | None = None,
            more: tuple[str, ...] = ()) -> list[Asked]:  # fmt: skip
        pairs = zip(entities or one.entities, answers or one.attributes, strict=True)
        choices = tuple(dict.fromkeys((*one.attributes, *more)))
        return [Asked(one.ids(entity), edits, answer, choices, expected) for entity, answer in pairs]

    def moved(kind: str, difference: torch.Tensor) -> tuple[Edit, ...]:
        first, second = one.streams(kind, 0) + difference, one.streams(kind, 1) - difference
        return (*one.put(kind, 0, first), *one.put(kind, 1, second))

    def exchanged(kind: str) -> tuple[Edit, ...]:
        return (*one.put(kind, 0, one.streams(kind, 1)), *one.put(kind, 1, one.streams(kind, 0)))

    new_entity, new_attribute = (other.names(kind)[0] for kind, other in new.items())
    own, swapped = one.attributes, (one.attributes[1], one.attributes[0])
    entity, attribute = (moved(kind, differences[kind]) for kind in ("entity", "attribute"))
    taken = {kind: one.put(kind, 0, other.streams(kind, 0)) for kind, other in new.items()}
    return {
        "as it is": ask((), "own"),
        "entity from another context": ask(taken["entity"], "own", entities=(new_entity, one.entities[1])),
        "attribute from another context": ask(
            taken["attribute"], "the new one", answers=(new_attribute, own[1]), more=(new_attribute,)
        ),
        "entities exchanged": ask(exchanged("entity"), "own"),
        "attributes exchanged": ask(exchanged("attribute"), "own"),
        "entity vectors swapped": ask(entity, "the other", answers=swapped),
        "attribute vectors swapped": ask(attribute, "the other", answers=swapped),
        "both vectors swapped": ask((*entity, *attribute), "own"),
        "random vectors": ask(moved("entity", differences["random"]), "the other", answers=swapped),
    }


@torch.no_grad()
def answer_margins(world: World, asked: dict[str, list[Asked]]) -> dict[str, np.ndarray]:
    """Return log p of the expected attribute less that of the best other, of every query of every test."""
    flat = [question for questions in asked.values() for question in questions]

    def run(batch: list[Asked]) -> list[float]:
        rows = [Row(question.ids, edits=question.edits) for question in batch]
        ends = torch.tensor([[len(question.ids) - 1] for question in batch])
        logits = forward(world.subject, rows, wanted=ends).logits[:, 0].double()
        found = []
        for scores, question in zip(logits, batch, strict=True):
            others = [world.first[choice] for choice in question.choices if choice != question.answer]
            found.append(float(scores[world.first[question.answer]] - scores[others].max()))
        return found

    values = np.array(in_batches(flat, [len(question.ids) for question in flat], run))
    ends = np.cumsum([len(questions) for questions in asked.values()])[:-1]
    return dict(zip(asked, np.split(values, ends), strict=True))
