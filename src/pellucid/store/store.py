"""The store: one database for runs and results, one folder for their tensors."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from sqlalchemy import select
from sqlalchemy.exc import IntegrityError

from pellucid.core import encoding
from pellucid.core.errors import InputError
from pellucid.core.results import Result
from pellucid.store.database import Database
from pellucid.store.runs import Run, opened, searchable
from pellucid.store.schema import ChunkRow, ResultRow, RunRow

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
        database.prepare()
        return cls(database, Path(folder))

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections; everything saved is safe already."""
        self.database.close()

    def run(self, name: str, config: Mapping[str, Any]) -> Run:
        """Return the unfinished run of this name and configuration, or a new one.

        The configuration is compared by its JSON, so it holds plain values. Processes that ask at once get one run.
        """
        document = encoding.encode_value(dict(config))
        written = encoding.dump(_sorted(document))
        digest = hashlib.sha256(written.encode()).hexdigest()
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
        wanted = (
            select(ResultRow, ChunkRow.key, RunRow.name)
            .join(ChunkRow, ChunkRow.id == ResultRow.chunk_id)
            .join(RunRow, RunRow.id == ChunkRow.run_id)
        )
        if method is not None:
            wanted = wanted.where(ResultRow.methods.contains(f"|{searchable(method)}|", autoescape=True))
        if model is not None:
            wanted = wanted.where(ResultRow.model == searchable(model))
        if text is not None:
            wanted = wanted.where(ResultRow.text.icontains(searchable(text), autoescape=True))
        yield from self._pages(wanted)

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


def _sorted(document: Any) -> Any:
    """Order the keys of objects, so that equal configurations have equal JSON; lists keep their order."""
    if isinstance(document, dict):
        return {key: _sorted(document[key]) for key in sorted(document)}
    return [_sorted(item) for item in document] if isinstance(document, list) else document
