"""Connections, transactions, and what their errors mean in plain words."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event, inspect
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, IntegrityError, NoSuchModuleError, SQLAlchemyError
from sqlalchemy.orm import Session

from pellucid.core.errors import FileError, InputError, MissingExtra, ResourceError
from pellucid.store.schema import SCHEMA, StoreRow
from pellucid.store.upgrade import upgrade, version

_BUSY = ("database is locked", "database table is locked", "database is busy", "due to lock timeout")
_AWAY = (
    "connection is bad", "connection failed", "connection refused", "connection timeout", "connection is closed",
    "connection is lost", "server closed the connection",
)  # fmt: skip
_FATAL = ("terminating connection", "the database system is", "too many clients", "remaining connection slots")
_FULL = ("database or disk is full", "disk i/o error", "no space left", "could not extend file")
_BROKEN = ("malformed", "not a database", "file is encrypted", "database corruption", "unsupported file format")


class Database:
    """One database: read with `reading()`, write with `writing()`, errors told as sentences."""

    def __init__(self, path_or_url: str, patience: float) -> None:
        self.patience = patience
        self.url = _url(path_or_url)
        self.name = (
            self.url.database
            if self.url.get_backend_name() == "sqlite" and self.url.database
            else self.url.render_as_string(hide_password=True)
        )
        self._engine = _engine(self.url, patience)
        self._writer = self._engine.execution_options(pellucid_write=True)
        self._file = Path(str(self.url.database)) if _is_file(self.url) else None
        self._identity: int | None = None

    @contextlib.contextmanager
    def reading(self) -> Iterator[Session]:
        """Yield a session that sees one state of the database."""
        self._check_file()
        with self.explained("read"), Session(self._engine, expire_on_commit=False) as session:
            yield session

    @contextlib.contextmanager
    def writing(self) -> Iterator[Session]:
        """Yield a session whose changes are committed when the block ends well, and undone otherwise.

        SQLite locks for writing at the start, so that a transaction that has read can always go on to write.
        """
        self._check_file()
        with self.explained("written"), Session(self._writer, expire_on_commit=False) as session, session.begin():
            yield session

    def prepare(self) -> None:
        """Bring the tables to this version; refuse a database of another program or of a newer version."""
        with self.explained("opened"):
            with self._engine.connect() as connection:
                self._refuse_foreign(connection)
                found = version(connection)
            if found > SCHEMA:
                raise FileError(
                    f"The store {self.name!r} has the format {found}, and this version reads up to {SCHEMA}; "
                    "update pellucid."
                )
            if found < SCHEMA:
                with self._writer.begin() as connection:
                    upgrade(connection)
        self._identity = self._file.stat().st_ino if self._file else None

    def close(self) -> None:
        """Close every connection."""
        self._engine.dispose()

    def _check_file(self) -> None:
        """Refuse a SQLite file that is not there any more: its connections would write to where nobody reads."""
        if self._file is None or self._identity is None:
            return
        try:
            found = self._file.stat().st_ino
        except OSError as error:
            raise ResourceError(
                f"The store {self.name!r} is away ({error.strerror}); bring it back and call again, nothing that was "
                "saved in it is lost."
            ) from error
        if found != self._identity:  # taken away and put back, or restored from a copy
            self._engine.dispose()
            self._identity = found

    def _refuse_foreign(self, connection: Connection) -> None:
        tables = set(inspect(connection).get_table_names())
        if tables and connection.dialect.name == "sqlite" and StoreRow.__tablename__ not in tables:
            raise FileError(
                f"{self.name!r} is a database of another program (tables {sorted(tables)[:3]}); "
                "give the store a path of its own."
            )

    @contextlib.contextmanager
    def explained(self, action: str) -> Iterator[None]:
        """Turn errors of the database into sentences."""
        try:
            yield
        except IntegrityError:
            raise
        except DBAPIError as error:
            raise self._sentence(error, action) from error
        except SQLAlchemyError as error:
            raise FileError(
                f"The store {self.name!r} could not be {action} ({error}); check the path or URL."
            ) from error

    def _sentence(self, error: DBAPIError, action: str) -> FileError | ResourceError:
        reason = str(error.orig).strip().split("\n")[0]
        low = reason.lower()
        if any(words in low for words in _BUSY):
            return ResourceError(
                f"The store {self.name!r} could not be {action} for {self.patience:g} s, because another process is "
                "writing; wait for it and call again, nothing that was saved is lost."
            )
        if _away(low) or error.connection_invalidated:
            return ResourceError(
                f"The store {self.name!r} could not be {action}, because its server cannot be reached ({reason}); "
                "start it and call again, nothing that was saved is lost."
            )
        if any(words in low for words in _FULL):
            return ResourceError(
                f"The store {self.name!r} could not be {action}, because there is no space left ({reason}); "
                "free space and run again, nothing that was saved is lost."
            )
        if any(words in low for words in _BROKEN):
            return FileError(
                f"{self.name!r} is no database or is damaged ({reason}); restore it from a copy or give another path."
            )
        return FileError(
            f"The store {self.name!r} could not be {action} ({reason}); check the path or URL and its permissions."
        )


def _away(reason: str) -> bool:
    """Return whether a server is out of reach for now, which a wrong password or name of a database is not."""
    if "fatal:" in reason or "terminating connection" in reason:
        return any(words in reason for words in _FATAL)
    return any(words in reason for words in _AWAY)


def _url(path_or_url: str) -> URL:
    if "://" not in path_or_url:
        path = Path(path_or_url)
        if path.is_dir():
            raise FileError(
                f"The store {path_or_url!r} is a folder; give a file, for example {str(path / 'store.db')!r}."
            )
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise FileError(
                f"The folder of {path_or_url!r} cannot be made ({error.strerror}); give another path."
            ) from error
        return URL.create("sqlite", database=str(path.absolute()))
    try:
        url = make_url(path_or_url)
        plain = url.drivername in ("postgresql", "postgres")  # SQLAlchemy's default driver depends on its version
        return url.set(drivername="postgresql+psycopg") if plain else url
    except ArgumentError as error:
        raise InputError(
            f"The store got {path_or_url!r}, which is no database URL ({error}); give a path or a URL."
        ) from error


def _engine(url: URL, patience: float) -> Engine:
    sqlite = url.get_backend_name() == "sqlite"
    waits = {"sqlite": {"timeout": patience}, "postgresql": {"connect_timeout": max(2, int(patience))}}
    try:
        engine = create_engine(url, connect_args=waits.get(url.get_backend_name(), {}), pool_pre_ping=not sqlite)
    except NoSuchModuleError as error:
        raise InputError(
            f"The store got the URL {url.render_as_string()!r} of an unknown kind of database; see SQLAlchemy's list."
        ) from error
    except ImportError as error:
        raise MissingExtra(
            f"The database of the store needs the package {error.name!r}, which is not installed; install it with pip."
        ) from error
    if sqlite:
        event.listen(engine, "connect", _connected(patience))
        event.listen(engine, "begin", _begin)
    if url.get_backend_name() == "postgresql":
        event.listen(engine, "connect", _impatient(patience))
    return engine


def _impatient(patience: float) -> Any:
    """Return what makes a PostgreSQL connection wait for a lock as long as SQLite would."""

    def prepare(connection: Any, _record: object) -> None:
        connection.cursor().execute(f"SET lock_timeout = {max(1, int(patience * 1000))}")
        connection.commit()

    return prepare


def _connected(patience: float) -> Any:
    """Return what prepares a SQLite connection: readers never wait for a writer, and a commit survives a power cut."""

    def prepare(connection: Any, _record: object) -> None:
        connection.isolation_level = None  # transactions begin where `_begin` says
        cursor = connection.cursor()
        cursor.execute(f"PRAGMA busy_timeout={int(patience * 1000)}")
        deadline = time.monotonic() + patience
        while cursor.execute("PRAGMA journal_mode").fetchone()[0] not in ("wal", "memory"):
            try:
                if cursor.execute("PRAGMA journal_mode=WAL").fetchone()[0] != "wal":
                    break  # a file system without shared memory: the older journal works there
            except connection.OperationalError as error:  # changing the journal does not wait by itself
                if "locked" not in str(error) or time.monotonic() > deadline:
                    raise
                time.sleep(0.02)
        cursor.execute("PRAGMA synchronous=FULL")
        cursor.execute("PRAGMA foreign_keys=ON")
        cursor.close()
        connection.create_function("lower", 1, _lower, deterministic=True)  # SQLite's own knows ASCII only

    return prepare


def _lower(value: Any) -> Any:
    return value.lower() if isinstance(value, str) else value


def _is_file(url: URL) -> bool:
    return url.get_backend_name() == "sqlite" and bool(url.database) and url.database != ":memory:"


def _begin(connection: Connection) -> None:
    write = connection.get_execution_options().get("pellucid_write", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")
