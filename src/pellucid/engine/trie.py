"""Token sequences as a trie: what they share is computed once, level by level, in batches."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import TYPE_CHECKING

import torch

from pellucid.engine.planning import TOKENS_PER_BATCH, check_cancelled, report
from pellucid.models.tails import Past, Tail, continue_rows

if TYPE_CHECKING:
    from pellucid.models.subject import Subject

LEAST_SAVING = 24  # tokens; below this an extra level costs more than it saves
MOST_BYTES = 1 << 30


@dataclass
class Node:
    """A stretch of tokens shared by all sequences below.

    It starts at depth `start`; `reads` are the (sequence, place in the stretch, target index) read inside it.
    """

    start: int
    ids: tuple[int, ...]
    parent: int = 0
    children: list[Node] = field(default_factory=list)
    reads: list[tuple[int, int, int]] = field(default_factory=list)


def build(sequences: Sequence[tuple[int, ...]], reads: int) -> list[Node]:
    """Return the roots of the trie of different sequences, each read at its last `reads` places."""
    order = sorted(range(len(sequences)), key=lambda i: sequences[i])
    return list(_nodes(sequences, order, 0, reads))


def _nodes(sequences: Sequence[tuple[int, ...]], order: list[int], depth: int, reads: int) -> Iterator[Node]:
    for _, group in groupby(order, key=lambda i: sequences[i][depth : depth + 1]):
        same = list(group)
        end = _common(sequences[same[0]], sequences[same[-1]], depth)
        deeper = [i for i in same if len(sequences[i]) > end]
        if len(deeper) > 1 and len(deeper) == len(same) and (end - depth) * (len(same) - 1) < LEAST_SAVING:
            yield from _apart(sequences, same, depth, end, reads)
            continue
        node = Node(depth, sequences[same[0]][depth:end])
        node.reads = [
            (i, place - depth, place - (len(sequences[i]) - reads))
            for i in same
            for place in range(max(depth, len(sequences[i]) - reads), min(end, len(sequences[i])))
        ]
        node.children = list(_nodes(sequences, deeper, end, reads)) if deeper else []
        yield node


def _apart(sequences: Sequence[tuple[int, ...]], same: list[int], depth: int, end: int, reads: int) -> Iterator[Node]:
    """Give a short shared stretch to each child, where sharing it would not pay."""
    for child in _nodes(sequences, same, end, reads):
        shared = sequences[same[0]][depth:end]
        members = {i for i, _, _ in _all_reads(child)}
        early = [
            (i, place - depth, place - (len(sequences[i]) - reads))
            for i in members
            for place in range(max(depth, len(sequences[i]) - reads), end)
        ]
        moved = [(i, place + len(shared), k) for i, place, k in child.reads]
        yield Node(depth, shared + child.ids, children=child.children, reads=early + moved)


def _all_reads(node: Node) -> Iterator[tuple[int, int, int]]:
    yield from node.reads
    for child in node.children:
        yield from _all_reads(child)


def _common(first: tuple[int, ...], last: tuple[int, ...], depth: int) -> int:
    # In sorted order, what the first and the last share, all between them share.
    end = depth
    while end < len(first) and end < len(last) and first[end] == last[end]:
        end += 1
    return end


def tokens_in(roots: Sequence[Node]) -> int:
    """Return how many tokens the trie computes."""
    return sum(len(node.ids) + tokens_in(node.children) for node in roots)


def run(
    subject: Subject, roots: Sequence[Node], read: Callable[[torch.Tensor, list[tuple[int, int]]], None], total: int
) -> None:
    """Walk the trie and give `read` the logits [n, vocabulary] with the (sequence, target index) of each."""
    done = 0

    def level(nodes: Sequence[Node], past: Past | None) -> None:
        nonlocal done
        for chunk in _chunks(nodes, past):
            check_cancelled()
            tails = [Tail(node.parent, node.start, node.ids) for node in chunk]
            places = [(row, place, i, k) for row, node in enumerate(chunk) for i, place, k in node.reads]
            wanted = (
                torch.tensor([p[0] for p in places], dtype=torch.long),
                torch.tensor([p[1] for p in places], dtype=torch.long),
            )
            parents = [row for row, node in enumerate(chunk) if node.children]
            kept = continue_rows(
                subject,
                past,
                tails,
                wanted,
                parents,
                lambda logits, p=places: read(logits, [(i, k) for _, _, i, k in p]),
            )
            done += len({p[2] for p in places})
            report(min(done, total), total)
            below = [child for number, row in enumerate(parents) for child in _under(chunk[row], number)]
            if below:
                level(below, kept)

    level(roots, None)


def _under(node: Node, number: int) -> list[Node]:
    for child in node.children:
        child.parent = number
    return node.children


def _chunks(nodes: Sequence[Node], past: Past | None) -> Iterator[list[Node]]:
    """Cut one level into batches by tokens and by the memory of the parents' keys and values."""
    per_row = 0 if past is None else past.bytes() // max(1, len(past.lengths))
    chunk: list[Node] = []
    for node in sorted(nodes, key=lambda n: len(n.ids)):
        size = (len(chunk) + 1) * len(node.ids)
        if chunk and (size > TOKENS_PER_BATCH or (len(chunk) + 1) * per_row > MOST_BYTES):
            yield chunk
            chunk = []
        chunk.append(node)
    if chunk:
        yield chunk
