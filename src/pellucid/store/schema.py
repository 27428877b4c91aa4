"""The tables: runs, their finished chunks, the results of each chunk, and jobs.

A change here needs a step in `migrations/versions` and a higher `SCHEMA`; a test compares the two.
"""

from __future__ import annotations

from datetime import UTC, datetime

from sqlalchemy import Double, ForeignKey, Index, String, Text, UniqueConstraint
from sqlalchemy import text as sql
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

SCHEMA = 2


class Base(DeclarativeBase):
    """What all tables share."""


def now() -> str:
    """Return the time in UTC as ISO text, which every database sorts rightly."""
    return written(datetime.now(UTC))


def written(moment: datetime) -> str:
    """Return a moment as the tables keep it: ISO text in UTC; a moment without a zone is local time."""
    return moment.astimezone(UTC).isoformat(timespec="microseconds")


class StoreRow(Base):
    """One row that says what this database is and in which version."""

    __tablename__ = "pellucid_store"

    id: Mapped[int] = mapped_column(primary_key=True)
    schema: Mapped[int]
    created: Mapped[str] = mapped_column(String(40), default=now)


class RunRow(Base):
    """A run: a name and a configuration; among unfinished runs the two are unique, so that processes agree on one."""

    __tablename__ = "pellucid_runs"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(400))
    config: Mapped[str] = mapped_column(Text)
    config_hash: Mapped[str] = mapped_column(String(64))
    finished: Mapped[bool] = mapped_column(default=False)
    created: Mapped[str] = mapped_column(String(40), default=now)
    ended: Mapped[str | None] = mapped_column(String(40))

    __table_args__ = (
        Index(
            "pellucid_one_unfinished_run",
            "name",
            "config_hash",
            unique=True,
            sqlite_where=sql("finished = 0"),
            postgresql_where=sql("NOT finished"),
        ),
    )


class ChunkRow(Base):
    """A unit of work that is done: its row and the rows of its results are committed together, or not at all."""

    __tablename__ = "pellucid_chunks"

    id: Mapped[int] = mapped_column(primary_key=True)
    run_id: Mapped[int] = mapped_column(ForeignKey("pellucid_runs.id"))
    key: Mapped[str] = mapped_column(String(400))
    committed: Mapped[str] = mapped_column(String(40), default=now, index=True)

    __table_args__ = (UniqueConstraint("run_id", "key", name="pellucid_chunk_once"),)


class ResultRow(Base):
    """One result: its document, the name of its tensors file, what it can be found by, and what people wrote on it.

    Numbers are never given twice, so that a link never opens another result.
    """

    __tablename__ = "pellucid_results"

    id: Mapped[int] = mapped_column(primary_key=True)
    chunk_id: Mapped[int] = mapped_column(ForeignKey("pellucid_chunks.id"), index=True)
    place: Mapped[int]
    kind: Mapped[str] = mapped_column(String(40))
    methods: Mapped[str] = mapped_column(Text)
    model: Mapped[str] = mapped_column(Text, index=True)
    text: Mapped[str] = mapped_column(Text)
    document: Mapped[str] = mapped_column(Text)
    tensors: Mapped[str] = mapped_column(String(64))
    note: Mapped[str] = mapped_column(Text, default="", server_default=sql("''"))
    tags: Mapped[str] = mapped_column(Text, default="|", server_default="|")

    __table_args__ = ({"sqlite_autoincrement": True},)


class JobRow(Base):
    """Work that was asked for: who asked, for what, how far it is, and the result that it ended in."""

    __tablename__ = "pellucid_jobs"

    id: Mapped[int] = mapped_column(primary_key=True)
    key: Mapped[str] = mapped_column(String(32), unique=True)
    owner: Mapped[str] = mapped_column(String(200), index=True)
    task: Mapped[str] = mapped_column(String(200))
    model: Mapped[str] = mapped_column(Text)
    parameters: Mapped[str] = mapped_column(Text)
    state: Mapped[str] = mapped_column(String(20), index=True)
    worker: Mapped[str] = mapped_column(String(200), default="")
    attempts: Mapped[int] = mapped_column(default=0)
    stop_asked: Mapped[bool] = mapped_column(default=False)
    done: Mapped[int] = mapped_column(default=0)
    total: Mapped[int] = mapped_column(default=0)
    message: Mapped[str] = mapped_column(Text, default="")
    remaining: Mapped[float | None] = mapped_column(Double)
    error: Mapped[str] = mapped_column(Text, default="")
    created: Mapped[str] = mapped_column(String(40), default=now)
    started: Mapped[str | None] = mapped_column(String(40))
    beat: Mapped[str | None] = mapped_column(String(40))
    ended: Mapped[str | None] = mapped_column(String(40))
    result_id: Mapped[int | None] = mapped_column(ForeignKey("pellucid_results.id", ondelete="SET NULL"))

    __table_args__ = ({"sqlite_autoincrement": True},)
