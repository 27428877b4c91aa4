"""The store: one database for runs and results, one folder for their tensors."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

from sqlalchemy import select
from sqlalchemy.exc import IntegrityError

from pellucid.core.errors import InputError
from pellucid.core.results import Result
from pellucid.store.database import Database
from pellucid.store.exchange import bring, export
from pellucid.store.jobs import Jobs
from pellucid.store.records import add_alone, columns, configuration, opened, searchable
from pellucid.store.retention import Removed, chosen, forget, forget_jobs
from pellucid.store.runs import Run
from pellucid.store.schema import ChunkRow, ResultRow, RunRow
from pellucid.store.search import Saved, annotate, page, rows

_PAGE = 100
_SETTLED = 3600.0


class Found(NamedTuple):
    """A result that `find` met: the name of its run, its key there, and the result."""

    run: str
    key: str
    result: Result


class Store:
    """Keeps the results of runs over data sets, so that several processes may read and write, and any of them may die.

    Make one with `Store.open`. It is a context manager that closes its connections.
    """

    def __init__(self, database: Database, folder: Path) -> None:
        self.database = database
        self.folder = folder

    @classmethod
    def open(
        cls,
        path_or_url: str | os.PathLike[str],
        folder: str | os.PathLike[str] | None = None,
        *,
        patience: float = 30.0,
    ) -> Store:
        """Open a store, and make it where there is none.

        Args:
            path_or_url: a file (SQLite), or a SQLAlchemy URL such as `postgresql+psycopg://host/name`.
            folder: where tensors go; beside a SQLite file by default, to be given for other databases.
            patience: seconds to wait for another process that is writing.

        Raises:
            FileError: for a damaged file, a database of another program or a newer version, or an unusable path.
            ResourceError: if the database stays locked, or the disk is full.
        """
        database = Database(os.fspath(path_or_url), patience)
        file = database.url.database
        if folder is None:
            if database.url.get_backend_name() != "sqlite" or not file or file == ":memory:":
                raise InputError(
                    f"The store {database.name!r} is no SQLite file, so tensors have no place; give folder=."
                )
            folder = f"{file}.tensors"
        try:
            database.prepare()
        except BaseException:
            database.close()
            raise
        return cls(database, Path(folder))

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections; everything saved is safe already."""
        self.database.close()

    @property
    def jobs(self) -> Jobs:
        """Return the jobs of this store."""
        return Jobs(self.database, self.folder)

    def add(self, result: Result, name: str = "", config: Mapping[str, Any] | None = None) -> int:
        """Save one result as a finished run of its own and return its number, which `get` opens.

        Args:
            result: any result.
            name: the name of the run; the method's name by default.
            config: plain values that say how it was made.

        Raises:
            ResourceError: if the disk is full or the database stays locked; nothing was saved.
        """
        row = columns(self.folder, 0, result)
        name = name or result.provenance.method or type(result).__name__.lower()
        with self.database.writing() as session:
            return add_alone(session, row, name[:400], config or {})

    def get(self, number: int) -> Result:
        """Open the result of this number.

        Raises:
            InputError: if there is none of this number (any more).
            FileError: if its document or tensors are damaged.
        """
        with self.database.reading() as session:
            row = session.get(ResultRow, number)
        if row is None:
            raise InputError(f"No result {number} is in the store {self.database.name!r}; search for those that are.")
        return opened(row, self.folder, f"the result {number}")

    def run(self, name: str, config: Mapping[str, Any]) -> Run:
        """Return the unfinished run of this name and configuration, or a new one.

        The configuration is compared by its JSON, so it holds plain values. Processes that ask at once get one run.
        """
        written, digest = configuration(config)
        name = searchable(name)
        if not name or len(name) > 400:
            raise InputError(f"A run needs a name of 1 to 400 characters, but got {name[:50]!r}; give another one.")
        unfinished = select(RunRow).where(RunRow.name == name, RunRow.config_hash == digest, RunRow.finished.is_(False))
        try:
            with self.database.writing() as session:
                row = session.scalars(unfinished).first()
                if row is None:
                    row = RunRow(name=name, config=written, config_hash=digest)
                    session.add(row)
                    session.flush()
        except IntegrityError:  # another process made it between the two steps
            with self.database.reading() as session:
                row = session.scalars(unfinished).one()
        return Run(self.database, self.folder, row.id, name)

    def runs(self) -> list[Run]:
        """Return all runs, oldest first."""
        with self.database.reading() as session:
            rows = session.execute(select(RunRow.id, RunRow.name).order_by(RunRow.id)).all()
        return [Run(self.database, self.folder, number, name) for number, name in rows]

    def find(self, *, method: str | None = None, model: str | None = None, text: str | None = None) -> Iterator[Found]:
        """Find results by method, model and a part of their text (in any case); what is not given does not matter.

        An `Explanation` is found by each of its methods. Results come in the order they were saved, a page at a time.
        """
        wanted = rows(ResultRow, ChunkRow.key, RunRow.name, method=method, model=model, text=text)
        yield from self._pages(wanted)

    def search(
        self,
        *,
        method: str | None = None,
        model: str | None = None,
        text: str | None = None,
        run: str | None = None,
        tag: str | None = None,
        note: str | None = None,
        annotated: bool | None = None,
        since: datetime | str | None = None,
        until: datetime | str | None = None,
        before: int | None = None,
        limit: int = 50,
    ) -> list[Saved]:
        """Return what is known about the results that fit all that is given, newest first, without opening them.

        Args:
            method: a method's name; an `Explanation` is found by each of its methods.
            model: a model's name.
            text: a part of the title or the prompt, in any case.
            run: the name of the run.
            tag: one of the result's tags.
            note: a part of the note, in any case.
            annotated: only those with a note or a tag, or only those without.
            since: saved at this moment or later; a datetime, or ISO text such as "2026-11-01".
            until: saved before this moment.
            before: the number of the last result of the page before.
            limit: how many results a page has at most.

        Raises:
            InputError: for a date or a limit that cannot be used.
        """
        with self.database.reading() as session:
            return page(
                session, limit, before, method=method, model=model, text=text, run=run, tag=tag, note=note,
                annotated=annotated, since=since, until=until,
            )  # fmt: skip

    def saved(self, number: int) -> Saved:
        """Return what is known about the result of this number; raise `InputError` if there is none (any more)."""
        with self.database.reading() as session:
            found = page(session, 1, number + 1)
        if not found or found[0].number != number:
            raise InputError(f"No result {number} is in the store {self.database.name!r}; search for those that are.")
        return found[0]

    def annotate(
        self, number: int, *, note: str | None = None, tags: Iterable[str] = (), untag: Iterable[str] = ()
    ) -> Saved:
        """Write a note on a result in place of the old one ("" takes it away), add tags and take tags away.

        Raises:
            InputError: if there is no such result, or for a note or tag that is too long.
        """
        with self.database.writing() as session:
            annotate(session, number, note, tags, untag)
        return self.saved(number)

    def keep(
        self,
        *,
        newest: int | None = None,
        since: datetime | str | None = None,
        size: int | None = None,
        annotated: bool = False,
        dry: bool = False,
    ) -> Removed:
        """Forget finished runs that any of the rules does not keep, and say what was forgotten.

        Runs go whole: a run with any result that has a note or a tag stays, and so does an unfinished one. Files of
        tensors go an hour after they were last wanted, here or in a later `tidy`.

        Args:
            newest: keep this many runs (those with a note or tag not counted).
            since: keep runs that ended at this moment or later; older jobs without a result go, too.
            size: keep the newest runs that fit in this many bytes of documents and tensors.
            annotated: forget runs with notes or tags as well.
            dry: only say what would be forgotten.
        """
        if newest is None and since is None and size is None:
            raise InputError("keep got no rule; give newest=, since= or size=.")
        with self.database.reading() if dry else self.database.writing() as session:
            gone = chosen(session, self.folder, newest, since, size, annotated)
            if not dry:
                forget(session, [run.number for run in gone], annotated)
                if since is not None:
                    forget_jobs(session, since)
        if not dry:
            self.tidy()
        return Removed(len(gone), sum(run.results for run in gone), sum(run.bytes for run in gone))

    def delete(self, number: int) -> None:
        """Forget the finished run that holds the result of this number, with all its results, notes and tags.

        Raises:
            InputError: if there is no such result, or its run is not finished.
        """
        run = self.saved(number).run
        with self.database.writing() as session:
            if forget(session, [run], annotated=True) == 0:
                raise InputError(f"The run of the result {number} is not finished; finish it, then delete it.")

    def export(self, path: str | os.PathLike[str], numbers: Iterable[int] | None = None) -> int:
        """Write results (all, or those of these numbers) to one zip file or a folder; see `pellucid.store.exchange`.

        Args:
            path: ending in ".zip" for one file; a new or empty folder otherwise.
            numbers: the results to export.

        Returns:
            How many results were written.

        Raises:
            InputError: for a number that is not in the store.
            FileError: if tensors are missing or damaged, or the path cannot be written.
            ResourceError: if the disk is full; nothing is left at `path`.
        """
        wanted = rows(ResultRow, ChunkRow, RunRow)
        if numbers is not None:
            chosen_ = sorted(set(numbers))
            for number in chosen_:
                self.saved(number)
            wanted = wanted.where(ResultRow.id.in_(chosen_))
        return export(self.database, self.folder, Path(path), wanted)

    def bring(self, path: str | os.PathLike[str]) -> int:
        """Read what `export` wrote, from this store or another; return how many results are new.

        Results get new numbers and keep run, date, note and tags; what is there already stays as it is.

        Raises:
            FileError: if the archive is no export, damaged, or of a newer version.
        """
        return bring(self.database, self.folder, Path(path))

    def _pages(self, wanted: Any) -> Iterator[Found]:
        last = 0
        while True:
            with self.database.reading() as session:
                page: list[Any] = list(
                    session.execute(wanted.where(ResultRow.id > last).order_by(ResultRow.id).limit(_PAGE))
                )
            if not page:
                return
            for row, key, run in page:
                yield Found(run, key, opened(row, self.folder, f"the result {key!r} of the run {run!r}"))
            last = page[-1][0].id

    def tidy(self) -> int:
        """Delete tensors files that no result names and that are older than an hour; return how many.

        They come from processes that died between writing a file and committing its result.
        """
        with self.database.reading() as session:
            named = set(session.scalars(select(ResultRow.tensors).distinct()))
        old = time.time() - _SETTLED
        count = 0
        for path in self.folder.glob("*/*"):
            if path.name.removesuffix(".safetensors") not in named and path.is_file() and path.stat().st_mtime < old:
                path.unlink(missing_ok=True)
                count += 1
        return count
