"""The tables: runs, their finished chunks, and the results of each chunk."""

from __future__ import annotations

from datetime import UTC, datetime

from sqlalchemy import ForeignKey, Index, String, Text, UniqueConstraint, text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

SCHEMA = 1


class Base(DeclarativeBase):
    """What all tables share."""


def now() -> str:
    """Return the time in UTC as ISO text, which every database sorts rightly."""
    return datetime.now(UTC).isoformat(timespec="microseconds")


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
            sqlite_where=text("finished = 0"),
            postgresql_where=text("NOT finished"),
        ),
    )


class ChunkRow(Base):
    """A unit of work that is done: its row and the rows of its results are committed together, or not at all."""

    __tablename__ = "pellucid_chunks"

    id: Mapped[int] = mapped_column(primary_key=True)
    run_id: Mapped[int] = mapped_column(ForeignKey("pellucid_runs.id"))
    key: Mapped[str] = mapped_column(String(400))
    committed: Mapped[str] = mapped_column(String(40), default=now)

    __table_args__ = (UniqueConstraint("run_id", "key", name="pellucid_chunk_once"),)


class ResultRow(Base):
    """One result: its document, the name of its tensors file, and what it can be found by."""

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
