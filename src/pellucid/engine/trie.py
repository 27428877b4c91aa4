"""Token sequences as a trie: what they share is computed once, in a few large batches.

The trie is cut into paths: each goes on with the child that has most tokens below it, and the other children leave it
where they branch off. A path is one row, so a thousand variants of one prompt take a handful of batches, not one for
every depth at which they part.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import TYPE_CHECKING

import torch

from pellucid.engine.model_head import LateOutputs
from pellucid.engine.planning import check_cancelled, report
from pellucid.models.tails import Past, Tail, continue_rows

if TYPE_CHECKING:
    from pellucid.models.subject import Subject

LEAST_SAVING = 6  # tokens; below this an extra level costs more than it saves
MOST_BYTES = 1 << 30
PADDING = 1.03  # rows of one batch may be padded by this factor
TOKENS_AT_ONCE = 2048  # what a block makes of so many tokens stays in a processor's cache for the most part
FREE_TOKENS = 256  # below this many tokens padding costs less than another batch


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


@dataclass
class Path:
    """A row: tokens from depth `start` down to a leaf, read at places in it; other paths branch off on the way."""

    start: int
    ids: tuple[int, ...]
    reads: list[tuple[int, int, int]]
    branches: list[Path]
    parent: int = 0


def paths(roots: Sequence[Node]) -> list[Path]:
    """Cut a trie into paths, each along the child with most tokens below it."""
    sizes: dict[int, int] = {}
    for node in _children_first(roots):
        sizes[id(node)] = len(node.ids) + sum(sizes[id(child)] for child in node.children)
    return [_path(root, sizes) for root in roots]


def _path(node: Node, sizes: dict[int, int]) -> Path:
    path = Path(node.start, (), [], [])
    while True:
        offset = len(path.ids)
        path.ids += node.ids
        path.reads += [(i, place + offset, k) for i, place, k in node.reads]
        if not node.children:
            return path
        heavy = max(node.children, key=lambda child: sizes[id(child)])
        path.branches += [_path(child, sizes) for child in node.children if child is not heavy]
        node = heavy


def _children_first(roots: Sequence[Node]) -> Iterator[Node]:
    stack, order = list(roots), []
    while stack:
        order.append(stack.pop())
        stack += order[-1].children
    return reversed(order)


def run(
    subject: Subject, roots: Sequence[Node], read: Callable[[torch.Tensor, list[tuple[int, int]]], None], total: int
) -> None:
    """Walk the trie and give `read` the logits [n, vocabulary] with the (sequence, target index) of each."""
    done, ends = 0, LateOutputs(subject, lambda logits, places: read(logits[:, 0], places))

    def level(rows: Sequence[Path], past: Past | None) -> None:
        nonlocal done
        for chunk in _chunks(rows, past):
            check_cancelled()
            tails = [Tail(path.parent, path.start, path.ids) for path in chunk]
            places = [(row, place, i, k) for row, path in enumerate(chunk) for i, place, k in path.reads]
            wanted = (
                torch.tensor([p[0] for p in places], dtype=torch.long),
                torch.tensor([p[1] for p in places], dtype=torch.long),
            )
            parents = [row for row, path in enumerate(chunk) if path.branches]
            kept = continue_rows(
                subject,
                past,
                tails,
                wanted,
                parents,
                lambda vectors, p=places: ends.add(vectors[:, None], [(i, k) for _, _, i, k in p]),
                last=True, head=False,
            )  # fmt: skip
            done += len({p[2] for p in places})
            report(min(done, total), total)
            below = [branch for number, row in enumerate(parents) for branch in _under(chunk[row], number)]
            if below:
                level(below, kept)

    level(paths(roots), None)
    ends.finish()


def _under(path: Path, number: int) -> list[Path]:
    for branch in path.branches:
        branch.parent = number
    return path.branches


def _chunks(rows: Sequence[Path], past: Past | None) -> Iterator[list[Path]]:
    """Cut paths into batches of similar length, by tokens and by the memory of the keys and values they keep or use."""
    per_row = 0 if past is None else past.bytes() // max(1, len(past.lengths))
    chunk: list[Path] = []
    real = 0
    for path in sorted(rows, key=lambda path: len(path.ids)):
        size = (len(chunk) + 1) * len(path.ids)
        padded = size > max(FREE_TOKENS, PADDING * (real + len(path.ids)))
        if chunk and (padded or size > TOKENS_AT_ONCE or (len(chunk) + 1) * per_row > MOST_BYTES):
            yield chunk
            chunk, real = [], 0
        chunk.append(path)
        real += len(path.ids)
    if chunk:
        yield chunk
