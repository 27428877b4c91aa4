"""A run: chunks of work that are saved whole, known by their keys, and never computed twice."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import func, select, update
from sqlalchemy.exc import IntegrityError

from pellucid.core.errors import InputError
from pellucid.core.results import Result
from pellucid.store.database import Database
from pellucid.store.records import UNSTORABLE, columns, opened
from pellucid.store.schema import ChunkRow, ResultRow, RunRow, now

_PAGE = 100


@dataclass(frozen=True)
class Run:
    """A run of a store; get one from `Store.run`."""

    database: Database
    folder: Path
    number: int
    name: str

    @property
    def finished(self) -> bool:
        """Return whether `finish` was called."""
        with self.database.reading() as session:
            return bool(session.scalars(select(RunRow.finished).where(RunRow.id == self.number)).one())

    @property
    def done(self) -> int:
        """Return the number of saved chunks."""
        with self.database.reading() as session:
            return session.scalars(
                select(func.count()).select_from(ChunkRow).where(ChunkRow.run_id == self.number)
            ).one()

    def pending(self, keys: Iterable[str]) -> list[str]:
        """Return the keys that are not saved yet, in the given order, each once."""
        with self.database.reading() as session:
            done = set(session.scalars(select(ChunkRow.key).where(ChunkRow.run_id == self.number)))
        return [key for key in dict.fromkeys(keys) if key not in done]

    def save(self, key: str, result: Result | Sequence[Result]) -> bool:
        """Save the result, or results, of one chunk; see `save_all`."""
        return self.save_all({key: result}) == 1

    def save_all(self, results: Mapping[str, Result | Sequence[Result]]) -> int:
        """Save several chunks in one transaction: all of them or none; return how many were new.

        A chunk that another process saved first stays as it is. Tensors are on disk before the transaction names them.

        Raises:
            ResourceError: if the disk is full or the database stays locked; nothing was saved.
        """
        rows: dict[str, list[dict[str, Any]]] = {}
        for key, given in results.items():
            if not key or len(key) > 400 or UNSTORABLE.search(key):
                raise InputError(
                    f"The key {key[:50]!r} cannot name a chunk; give 1 to 400 characters of ordinary text."
                )
            several = [given] if isinstance(given, Result) else list(given)
            rows[key] = [columns(self.folder, place, result) for place, result in enumerate(several)]
        try:
            return self._commit(rows)
        except IntegrityError:  # another process saved one of them meanwhile (not in SQLite, which locks first)
            return self._commit(rows)

    def results(self) -> Iterator[tuple[str, Result]]:
        """Go through the saved results as (key, result), sorted by key; a page at a time, so that any number fits."""
        last: tuple[str, int] | None = None
        while True:
            wanted = select(ResultRow, ChunkRow.key).join(ChunkRow, ChunkRow.id == ResultRow.chunk_id)
            wanted = wanted.where(ChunkRow.run_id == self.number).order_by(ChunkRow.key, ResultRow.place).limit(_PAGE)
            if last is not None:
                key, place = last
                wanted = wanted.where((ChunkRow.key > key) | ((ChunkRow.key == key) & (ResultRow.place > place)))
            with self.database.reading() as session:
                page = session.execute(wanted).all()
            for row, key in page:
                yield key, opened(row, self.folder, f"the result {key!r} of the run {self.name!r}")
            if not page:
                return
            last = page[-1][1], page[-1][0].place

    def finish(self) -> None:
        """Mark the run as complete: the next `Store.run` of this name and configuration begins anew."""
        with self.database.writing() as session:
            session.execute(update(RunRow).where(RunRow.id == self.number).values(finished=True, ended=now()))

    def _commit(self, rows: Mapping[str, list[dict[str, Any]]]) -> int:
        with self.database.writing() as session:
            done = set(
                session.scalars(
                    select(ChunkRow.key).where(ChunkRow.run_id == self.number, ChunkRow.key.in_(list(rows)))
                )
            )
            for key in (key for key in rows if key not in done):
                chunk = ChunkRow(run_id=self.number, key=key)
                session.add(chunk)
                session.flush()
                session.add_all(ResultRow(chunk_id=chunk.id, **row) for row in rows[key])
        return len(rows) - len(done)
