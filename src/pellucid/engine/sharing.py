"""How much of their forward work the rows of a method share, estimated before it runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from pellucid.core.catalogue import Entry
from pellucid.core.cost import cost_names
from pellucid.engine import coalitions, trie
from pellucid.engine.fit import Fit
from pellucid.engine.question import Question
from pellucid.engine.scoring import trusted
from pellucid.engine.variants import default_replacement

if TYPE_CHECKING:
    from pellucid.models.subject import Subject

MOST_ROWS, MOST_TOKENS = 1024, 1 << 18
CONE_PADDING = 1.15  # measured, attention to kept positions included


@dataclass
class Walk:
    """The batches of a trie: (rows, tokens, tokens whose keys and values are kept meanwhile), and how often each is."""

    batches: list[tuple[int, int, int]] = field(default_factory=list)
    times: float = 1.0

    def seconds(self, found: Fit, targets: int) -> float:
        """Return the seconds of all batches."""
        return self.times * sum(found.seconds(rows, tokens, targets) for rows, tokens, _ in self.batches)

    def bytes(self, found: Fit, subject: Subject, targets: int) -> float:
        """Return the most bytes held at once."""
        heads = subject.need_layout().stacks[""].heads
        size = torch.finfo(getattr(torch, subject.dtype)).bits // 8
        token = 2 * subject.layers * heads.key_value * heads.width * size
        return max(found.bytes(rows, tokens, targets) + kept * token for rows, tokens, kept in self.batches)


def grid_share(entry: Entry, question: Question) -> float:
    """Return the part of the work left for edits on a grid of layers and positions: that of their causal cones.

    Half the layers, half the positions, and the padding of rows that begin at different positions.
    """
    subject = question.subject
    on_grid = {"layer", "position"} <= set(entry.axes) and "gradients" not in entry.needs
    if not on_grid or question.readout.kind != "next" or not trusted(subject.without_edits()):
        return 1.0
    return min(1.0, CONE_PADDING * 0.25 * (1 + 1 / subject.layers) * (1 + 1 / len(question.tokens)))


def walk(entry: Entry, question: Question, forwards: float, parameters: Mapping[str, Any]) -> Walk | None:
    """Return the batches in which variants that share prefixes are scored, or None where they share nothing.

    Rows are made up: each unit left out where there are no more rows than units, else the coalitions met on random
    orders where the cost counts permutations, else random coalitions. An approximation of what the method will ask for.
    """
    subject = question.subject
    removal = parameters.get("replacement")
    removal = default_replacement(subject) if removal is None else removal
    if tuple(entry.needs) != ("scores",) or question.readout.kind != "next" or removal in ("mean", "zero"):
        return None
    if forwards < 2 or subject.edits or not trusted(subject):
        return None
    orders = "permutations" in cost_names(entry.cost)
    rows = _rows(question, forwards, deleting=removal == "delete", orders=orders)
    forced = max(len(ids) for ids in question.readout.forced)
    found = Walk(times=max(1.0, forwards / len(rows)) * len(question.readout.forced))
    _level(trie.paths(trie.build(rows, forced + 1)), 0, found)
    return found


def _level(paths: Sequence[trie.Path], held: int, found: Walk) -> None:
    """Add the batches of one level of a trie and of those below it, as `trie.run` makes them."""
    for chunk in trie._chunks(paths, None):
        parents = [path for path in chunk if path.branches]
        kept = held + len(parents) * max((path.start + len(path.ids) for path in parents), default=0)
        found.batches.append((len(chunk), max(len(path.ids) for path in chunk), kept))
        if parents:
            _level([branch for path in parents for branch in path.branches], kept, found)


def _rows(question: Question, forwards: float, deleting: bool, orders: bool) -> list[tuple[int, ...]]:
    """Return different made-up rows: positions stand for tokens, so that only what is really shared is equal."""
    rng, units, length = np.random.default_rng(0), len(question.units), len(question.tokens)
    count = int(min(forwards, MOST_ROWS, max(16, MOST_TOKENS // length)))
    if forwards <= 2 * units + 2:
        masks = np.concatenate([np.ones((1, units), dtype=bool), ~np.eye(units, dtype=bool)[rng.permutation(units)]])
    elif orders:
        masks = np.concatenate([coalitions.walk(rng.permutation(units)) for _ in range(1 + count // (units + 1))])
    else:
        masks = rng.random((count, units)) < rng.random((count, 1))
    continuation = range(length, length + max(len(ids) for ids in question.readout.forced))
    places, rows = np.arange(length), dict[tuple[int, ...], None]()
    for mask in masks[:count]:
        gone = np.zeros(length, dtype=bool)
        for keep, (start, end) in zip(mask, question.units.spans, strict=True):
            gone[start:end] |= not keep
        kept = places[~gone] if deleting else np.where(gone, -1 - places, places)
        rows[(*kept.tolist(), *continuation)] = None
    return list(rows)
