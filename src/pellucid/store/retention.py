"""Forget what is old: whole runs only, so that no run is ever shown with a part of its results."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from sqlalchemy import delete, func, or_, select
from sqlalchemy.orm import Session

from pellucid.core.errors import InputError
from pellucid.store.records import tensors_path
from pellucid.store.schema import ChunkRow, JobRow, ResultRow, RunRow
from pellucid.store.search import moment

_AT_ONCE = 500


@dataclass(frozen=True)
class Removed:
    """What was forgotten: how many runs and results, and about how many bytes."""

    runs: int
    results: int
    bytes: int


@dataclass
class _Held:
    """A finished run, as far as forgetting it is concerned."""

    number: int
    ended: str
    results: int
    bytes: int
    annotated: bool


def chosen(
    session: Session,
    folder: Path,
    newest: int | None,
    since: datetime | str | None,
    size: int | None,
    annotated: bool,
) -> list[_Held]:
    """Return the finished runs that the rules do not keep."""
    for name, value in (("newest", newest), ("size", size)):
        if value is not None and value < 0:
            raise InputError(f"keep got {name}={value}; give 0 or more.")
    held = _held(session, folder)
    safe = [run for run in held if run.annotated and not annotated]
    others = [run for run in held if not run.annotated or annotated]
    earliest = moment(since) if since is not None else ""
    used = sum(run.bytes for run in safe)
    gone: list[_Held] = []
    for place, run in enumerate(others):
        used += run.bytes
        beyond = (newest is not None and place >= newest) or (size is not None and used > size)
        if beyond or run.ended < earliest:
            gone.append(run)
            used -= run.bytes
    return gone


def forget(session: Session, runs: Iterable[int], annotated: bool) -> int:
    """Delete finished runs with all they hold; return how many.

    A run that someone wrote on meanwhile stays, unless `annotated`. Jobs that ended in such a result stay, without it.
    """
    numbers = list(runs)
    count = 0
    for start in range(0, len(numbers), _AT_ONCE):
        part = numbers[start : start + _AT_ONCE]
        of_part = select(ChunkRow.id).where(ChunkRow.run_id.in_(part))
        held = select(ChunkRow.run_id, ResultRow.note, ResultRow.tags).join(ResultRow)
        kept = {
            run
            for run, note, tags in session.execute(held.where(ChunkRow.run_id.in_(part)).with_for_update(of=ResultRow))
            if (note or tags != "|") and not annotated
        }
        kept |= set(session.scalars(select(RunRow.id).where(RunRow.id.in_(part), RunRow.finished.is_(False))))
        part = [number for number in part if number not in kept]
        of_part = select(ChunkRow.id).where(ChunkRow.run_id.in_(part))
        session.execute(delete(ResultRow).where(ResultRow.chunk_id.in_(of_part)))
        session.execute(delete(ChunkRow).where(ChunkRow.run_id.in_(part)))
        session.execute(delete(RunRow).where(RunRow.id.in_(part)))
        count += len(part)
    return count


def forget_jobs(session: Session, since: datetime | str) -> int:
    """Delete jobs that ended before a date and have no result (any more); return how many."""
    old = delete(JobRow).where(JobRow.ended < moment(since), JobRow.result_id.is_(None), JobRow.state != "queued")
    gone = session.execute(old.where(JobRow.state != "running").returning(JobRow.id))
    return len(gone.all())


def _held(session: Session, folder: Path) -> list[_Held]:
    """Return all finished runs, newest first; their bytes are documents and tensors, a shared file counted in each."""
    on = or_(ResultRow.note != "", ResultRow.tags != "|")
    joined = (
        select(RunRow.id, RunRow.ended, RunRow.created, func.length(ResultRow.document), ResultRow.tensors, on)
        .outerjoin(ChunkRow, ChunkRow.run_id == RunRow.id)
        .outerjoin(ResultRow, ResultRow.chunk_id == ChunkRow.id)
        .where(RunRow.finished.is_(True))
    )
    runs: dict[int, _Held] = {}
    for number, ended, created, length, digest, annotated in session.execute(joined):
        run = runs.setdefault(number, _Held(number, ended or created, 0, 0, False))
        if digest is None:
            continue
        path = tensors_path(folder, digest)
        run.results += 1
        run.bytes += length + (path.stat().st_size if path.exists() else 0)
        run.annotated |= bool(annotated)
    return sorted(runs.values(), key=lambda run: (run.ended, run.number), reverse=True)
