"""Scores that are already known: equal variants of one question are run once, across methods, metrics and crashes.

A score is kept under a hash of everything that decides it: the model's identity, the prompt, the readout and the
variant. A weight that changes changes the key, so a stale score cannot be found; it falls out when room is needed.
`provenance` counts what was run, so a result made from kept scores says fewer forwards.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pellucid.core.tokens import Tokens
from pellucid.engine.identity import bits, identity, is_cheap, is_steady
from pellucid.engine.journal import Journal
from pellucid.engine.readout import Readout
from pellucid.engine.variants import Variant

if TYPE_CHECKING:
    from pellucid.models.subject import Subject

MOST_BYTES = 1 << 26
ENTRY_BYTES = 240
LEAST_TOKENS = 256
FIRST_TOKENS = 512
PART_SECONDS = 8.0

Run = Callable[[list[Variant]], np.ndarray]


class Store:
    """Scores by key, the longest unused forgotten first; safe to use from several threads."""

    def __init__(self, most_bytes: int = MOST_BYTES) -> None:
        self.most_bytes, self.bytes = most_bytes, 0
        self.known: OrderedDict[bytes, np.ndarray] = OrderedDict()
        self.lock = threading.Lock()

    def get(self, key: bytes) -> np.ndarray | None:
        """Return the scores kept under a key, or None."""
        with self.lock:
            if key in self.known:
                self.known.move_to_end(key)
            return self.known.get(key)

    def put(self, key: bytes, scores: np.ndarray) -> None:
        """Keep scores, and forget the longest unused ones where there is no room."""
        with self.lock:
            if key not in self.known:
                self.known[key] = scores
                self.bytes += ENTRY_BYTES + scores.nbytes
            while self.bytes > self.most_bytes:
                self.bytes -= ENTRY_BYTES + self.known.popitem(last=False)[1].nbytes


_journal: ContextVar[Journal | None] = ContextVar("pellucid_journal", default=None)
_used: ContextVar[bool] = ContextVar("pellucid_store_used", default=True)


@contextmanager
def unused() -> Iterator[None]:
    """Run every variant anew in this context: nothing kept is read, nothing new is kept."""
    token = _used.set(False)
    try:
        yield
    finally:
        _used.reset(token)


@dataclass
class Taken:
    """How many rows a context did not run because their scores were known."""

    rows: int = 0


_taken: ContextVar[tuple[Taken, ...]] = ContextVar("pellucid_store_taken", default=())


@contextmanager
def taken() -> Iterator[Taken]:
    """Count the rows that are not run in this context because their scores are known."""
    count = Taken()
    token = _taken.set((*_taken.get(), count))
    try:
        yield count
    finally:
        _taken.reset(token)


@contextmanager
def resumable(path: Path | str) -> Iterator[None]:
    """Write every scored variant of this context to a file, and run none again that is in it.

    A run that was killed continues where it stopped when it is started again with the same file: what had been written
    is not run again, and a record that was half written is dropped. Only scores of variants are kept, for other work is
    done again; a black box counts as the same where its name is. Targets that are functions are always run.

    Raises:
        FileError: the file is another one, cannot be written, or another run is writing to it.
    """
    with Journal(Path(path)) as journal:
        token = _journal.set(journal)
        try:
            yield
        finally:
            _journal.reset(token)


def answered(subject: Subject, tokens: Tokens, readout: Readout, variants: Sequence[Variant], run: Run) -> np.ndarray:
    """Return the scores of different variants, [variants, readout.size], running those that are not known.

    Args:
        subject: the model.
        tokens: the prompt.
        readout: what is read.
        variants: different ones.
        run: scores variants: [n, readout.size].
    """
    journal = _journal.get()
    question = _question(subject, tokens, readout, variants, journal is not None)
    if question is None:
        return run(list(variants))
    store: Store = subject.state.cache.setdefault("scored variants", Store())
    keys = _keys(subject, question, variants)
    found = {key: kept for key in keys if (kept := _kept(store, journal, key, readout.size)) is not None}
    missing = [i for i, key in enumerate(keys) if key not in found]
    for count in _taken.get():
        count.rows += (len(variants) - len(missing)) * len(readout.forced)
    for part, scores in _run(variants, missing, run, journal is not None):
        new = [(keys[i], np.array(row)) for i, row in zip(part, scores, strict=True)]  # no views that hold the batch
        found.update(new)
        for key, row in new:
            store.put(key, row)
        if journal:
            journal.write(new)
    return np.stack([found[key] for key in keys])


def _run(
    variants: Sequence[Variant], missing: list[int], run: Run, parts: bool
) -> Iterator[tuple[list[int], np.ndarray]]:
    """Run what is missing and yield places and scores, in parts of some seconds where each is to be written when done.

    Neighbours share their beginnings, so that parts lose little of what a trie saves.
    """
    waiting = sorted(missing, key=lambda i: variants[i].ids) if parts else missing
    size = FIRST_TOKENS if parts else sum(len(v.ids) for v in variants)
    while waiting:
        ends = np.cumsum([len(variants[i].ids) for i in waiting])
        count = max(1, int(np.searchsorted(ends, size, side="right")))
        start = time.perf_counter()
        yield waiting[:count], run([variants[i] for i in waiting[:count]])
        seconds, waiting = time.perf_counter() - start, waiting[count:]
        size = 2 * size if seconds < PART_SECONDS / 2 else size if seconds < PART_SECONDS else max(1, size // 2)


def _kept(store: Store, journal: Journal | None, key: bytes, size: int) -> np.ndarray | None:
    written = journal.known.get(key) if journal else None
    kept = store.get(key) if written is None else written
    return kept if kept is not None and len(kept) == size else None


def _question(
    subject: Subject, tokens: Tokens, readout: Readout, variants: Sequence[Variant], asked: bool
) -> bytes | None:
    """Return the key of a question, or None where its scores are not kept.

    Functions may answer differently each time. A few tokens are run faster than the weights of a large model are read.
    """
    if not _used.get() or readout.function is not None:
        return None
    if subject.kind == "black-box":  # its answers may change without a trace, so they are kept on demand alone
        model = subject.name.encode() if asked else None
    elif asked or is_steady() or is_cheap(subject) or sum(len(v.ids) for v in variants) >= LEAST_TOKENS:
        model = identity(subject)
    else:
        return None
    if model is None:
        return None
    parts = [(part.ids, part.sign) for part in readout.parts]
    reference = b"" if readout.reference is None else bits([readout.reference])
    prompt = () if subject.kind == "black-box" else (tuple(tokens.ids), tuple(tokens.segment))
    digest = hashlib.blake2b(model, digest_size=16)
    digest.update(repr((prompt, readout.kind, parts, readout.measure, readout.each)).encode())
    digest.update(reference)
    return digest.digest()


def _keys(subject: Subject, question: bytes, variants: Sequence[Variant]) -> list[bytes]:
    if subject.kind == "black-box":  # the ids of its words are their order of appearance, which differs between runs
        texts = {index: piece for piece, index in subject.state.cache["pieces"].items()}
        return [_hash(question, "".join(texts[i] for i in variant.ids).encode()) for variant in variants]
    return [
        _hash(
            question,
            repr((len(variant.ids), variant.vector if variant.hollow else "")).encode(),
            *(np.asarray(ids, dtype=np.int64).tobytes() for ids in (variant.ids, variant.origin, variant.hollow)),
        )
        for variant in variants
    ]


def _hash(question: bytes, *parts: bytes) -> bytes:
    digest = hashlib.blake2b(digest_size=16, key=question)
    for part in parts:
        digest.update(part)
    return digest.digest()
