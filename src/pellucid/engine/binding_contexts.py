"""Contexts of two entities with an attribute each, and what their tokens carry in the residual stream."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from pellucid.core.errors import InputError
from pellucid.engine.capture import capture
from pellucid.models.edits import Edit
from pellucid.models.subject import Subject

Names = tuple[str, str]


@dataclass(frozen=True, eq=False)
class World:
    """What contexts are made of; `first` is the first token of each attribute as an answer."""

    subject: Subject
    template: str
    query: str
    first: dict[str, int]


@dataclass(frozen=True, eq=False)
class Context:
    """One context: its names, the token positions of each, and the streams [layer, position, dimension]."""

    world: World
    entities: Names
    attributes: Names
    places: dict[str, list[list[int]]]
    values: torch.Tensor

    def streams(self, kind: str, which: int) -> torch.Tensor:
        """Return the stream of the tokens of an entity or attribute: [layer, token, dimension]."""
        return self.values[:, self.places[kind][which]]

    def names(self, kind: str) -> Names:
        """Return both entities or both attributes."""
        return self.entities if kind == "entity" else self.attributes

    def put(self, kind: str, which: int, streams: torch.Tensor) -> tuple[Edit, ...]:
        """Return the edits that put other streams in a name's place."""
        where = {"position": self.places[kind][which]}
        return tuple(Edit(f"blocks.{layer}.resid_pre", "set", one, where) for layer, one in enumerate(streams))

    def ids(self, entity: str) -> tuple[int, ...]:
        """Return the context with a query behind it."""
        return self.world.subject.encode(_text(self.world, self.entities, self.attributes, entity)[0]).ids


def draw(world: World, entities: Sequence[str], attributes: Sequence[str], rng: np.random.Generator) -> Context:
    """Draw a context of two different entities and attributes, and run it.

    Raises:
        InputError: a name of several tokens in its place, or a tokenizer that does not say where tokens are.
    """
    names = tuple(entities[int(i)] for i in rng.choice(len(entities), 2, replace=False))
    values = tuple(attributes[int(i)] for i in rng.choice(len(attributes), 2, replace=False))
    text, spans = _text(world, names, values, names[0])  # type: ignore[arg-type]
    tokens = world.subject.encode(text)
    if tokens.offsets is None:
        raise InputError("The tokenizer does not say where tokens are in a text; load the model with a fast one.")
    places = {
        kind: [[i for i, (a, b) in enumerate(tokens.offsets) if a < end and b > start] for start, end in ranges]
        for kind, ranges in spans.items()
    }
    sites = [f"blocks.{layer}.resid_pre" for layer in range(world.subject.layers)]
    found = capture(world.subject, tokens, sites)
    lengths = {kind: {len(one) for one in both} for kind, both in places.items()}
    if any(one != {1} for one in lengths.values()):
        raise InputError(
            f"Vectors move from name to name, so each must be one token in its place, but {names} and {values} have "
            f"{sorted(lengths['entity'])} and {sorted(lengths['attribute'])}; choose other names or another template."
        )
    return Context(world, names, values, places, torch.stack([found[site] for site in sites]))  # type: ignore[arg-type]


def _text(world: World, entities: Names, attributes: Names, asked: str) -> tuple[str, dict[str, list[tuple[int, int]]]]:
    """Return the context with a query, and the characters of each name in the context."""
    text, spans = "", dict[str, list[tuple[int, int]]](entity=[], attribute=[])
    for entity, attribute in zip(entities, attributes, strict=True):
        for piece in re.split(r"(\{entity\}|\{attribute\})", world.template):
            name = {"{entity}": entity, "{attribute}": attribute}.get(piece)
            if name is not None:
                spans[piece[1:-1]].append((len(text), len(text) + len(name)))
            text += piece if name is None else name
    return text + world.query.replace("{entity}", asked), spans


def first_token(subject: Subject, attribute: str) -> int:
    """Return the first token of an attribute behind a query, with a space in front."""
    return int(subject.tokenizer(f" {attribute}", add_special_tokens=False)["input_ids"][0])
