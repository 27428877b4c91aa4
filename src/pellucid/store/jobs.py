"""Jobs: work that was asked for, done by one worker each, whose end and result are committed together.

queued -> running -> done | failed | cancelled
                  -> interrupted (the worker went away) -> queued again
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NoReturn, cast

from sqlalchemy import CursorResult, func, select, update
from sqlalchemy.orm import Session

from pellucid.core.errors import InputError, ResourceError
from pellucid.core.results import Result
from pellucid.store.database import Database
from pellucid.store.records import add_alone, columns, searchable
from pellucid.store.schema import JobRow, now, written

WAITING = ("queued", "running")
ENDED = ("done", "failed", "cancelled", "interrupted")


@dataclass(frozen=True)
class Job:
    """A job as it was when it was read; `id` cannot be guessed, times are ISO text in UTC, `result` opens the result.

    `done` of `total` is the progress, `remaining` the seconds that the worker expects; `attempts` counts the claims.
    """

    id: str
    owner: str
    task: str
    model: str
    parameters: Mapping[str, Any]
    state: str
    worker: str
    attempts: int
    stop_asked: bool
    done: int
    total: int
    message: str
    remaining: float | None
    error: str
    created: str
    started: str | None
    beat: str | None
    ended: str | None
    result: int | None


@dataclass(frozen=True)
class Jobs:
    """The jobs of a store; get them from `Store.jobs`. Every method is one transaction and may be called by anyone.

    Methods that a worker calls take its name and change nothing once the job is no longer its own (it was marked as
    interrupted, or ended), so that a worker thought dead cannot overwrite what came after it.
    """

    database: Database
    folder: Path

    def enqueue(
        self, task: str, model: str, parameters: Mapping[str, Any], *, owner: str = "", most: int | None = None
    ) -> Job:
        """Put a job at the end of the queue and return it.

        Args:
            task: what is done, for example a method's name.
            model: the name of the model it needs.
            parameters: plain JSON values.
            owner: who asked.
            most: how many jobs this owner may have queued or running at once.

        Raises:
            InputError: for parameters that JSON lacks.
            ResourceError: if the owner has `most` jobs already, or the database cannot be written.
        """
        row = JobRow(
            key=uuid.uuid4().hex, owner=_short(owner, "owner"), task=_short(task, "task"), model=searchable(model),
            parameters=_json(parameters), state="queued",
        )  # fmt: skip
        with self.database.writing() as session:
            if most is not None and self._waiting(session, row.owner) >= most:
                raise ResourceError(
                    f"{owner or 'This owner'!r} has {most} jobs queued or running already; wait for one or cancel one."
                )
            session.add(row)
            session.flush()
            return _job(row)

    def get(self, job: str) -> Job:
        """Return a job; raise `InputError` if there is none."""
        with self.database.reading() as session:
            return _job(_row(session, job))

    def recent(
        self,
        *,
        owner: str | None = None,
        states: Collection[str] | None = None,
        before: str | None = None,
        limit: int = 50,
    ) -> list[Job]:
        """Return jobs, newest first; `before` is the id of the last job of the page before."""
        wanted = select(JobRow).order_by(JobRow.id.desc()).limit(limit)
        if owner is not None:
            wanted = wanted.where(JobRow.owner == searchable(owner))
        if states is not None:
            wanted = wanted.where(JobRow.state.in_(_known(states)))
        with self.database.reading() as session:
            if before is not None:
                wanted = wanted.where(JobRow.id < _row(session, before).id)
            return [_job(row) for row in session.scalars(wanted)]

    def place(self, job: str) -> int | None:
        """Return how many queued jobs start before this one, 0 for the next; None once it is not queued."""
        with self.database.reading() as session:
            row = _row(session, job)
            if row.state != "queued":
                return None
            ahead = select(func.count()).select_from(JobRow).where(JobRow.state == "queued", JobRow.id < row.id)
            return session.scalars(ahead).one()

    def counts(self) -> dict[str, int]:
        """Return the number of jobs in each state that occurs."""
        with self.database.reading() as session:
            rows = session.execute(select(JobRow.state, func.count()).group_by(JobRow.state)).all()
        return {state: count for state, count in rows}  # noqa: C416 - rows are no pairs to a type checker

    def claim(self, worker: str, *, models: Collection[str] | None = None) -> Job | None:
        """Take the oldest queued job (of these models) and mark it as running; None where there is none.

        Several workers that ask at once get different jobs.
        """
        wanted = select(JobRow).where(JobRow.state == "queued").order_by(JobRow.id).limit(1)
        if models is not None:
            wanted = wanted.where(JobRow.model.in_([searchable(model) for model in models]))
        with self.database.writing() as session:  # SQLite, which has no such locks, lets one writer in at a time
            row = session.scalars(wanted.with_for_update(skip_locked=True)).first()
            if row is None:
                return None
            row.state, row.worker, row.attempts = "running", _short(worker, "worker"), row.attempts + 1
            row.started = row.beat = now()
            row.ended, row.error, row.message, row.remaining = None, "", "", None
            row.done = row.total = 0
            row.stop_asked = False
            session.flush()
            return _job(row)

    def heartbeat(
        self, job: str, worker: str, *, done: int = 0, total: int = 0, message: str = "", remaining: float | None = None
    ) -> bool:
        """Say that a running job goes on and how far it is; return whether to go on.

        False: someone asked to stop it (then call `stopped`), or the job is no longer this worker's.
        """
        values = {
            "beat": now(), "done": done, "total": total, "message": searchable(message), "remaining": remaining
        }  # fmt: skip
        with self.database.writing() as session:
            if not self._change(session, job, worker, values):
                return False
            return not session.scalars(select(JobRow.stop_asked).where(JobRow.key == job)).one()

    def finish(self, job: str, worker: str, result: Result) -> int | None:
        """Save the result and mark the job as done, both or neither; return the number of the result.

        `Store.get(number)` opens it. None, and nothing is saved, if the job is no longer this worker's. A job that was
        asked to stop but ended first is done. Called again, after a connection that broke, it returns the same number.

        Raises:
            ResourceError: if the disk is full or the database is away or locked; the job still runs, so call again.
        """
        columns_ = columns(self.folder, 0, result)  # tensors are on disk before the transaction names them
        with self.database.writing() as session:
            row = _row(session, job, lock=True)
            if row.worker != searchable(worker) or row.state not in ("running", "done"):
                return None
            if row.state == "done":
                return row.result_id
            config = {"task": row.task, "model": row.model, "parameters": json.loads(row.parameters)}
            row.result_id = add_alone(session, columns_, row.task, config)
            row.state, row.ended, row.done, row.remaining = "done", now(), max(row.done, row.total), None
            return row.result_id

    def fail(self, job: str, worker: str, error: str) -> bool:
        """Mark a running job as failed with a sentence; return whether it was this worker's."""
        with self.database.writing() as session:
            return self._change(session, job, worker, _end("failed", searchable(error)))

    def stopped(self, job: str, worker: str) -> bool:
        """Mark a running job as cancelled, when the worker has stopped; return whether it was this worker's."""
        with self.database.writing() as session:
            return self._change(session, job, worker, _end("cancelled"))

    def cancel(self, job: str) -> Job:
        """Cancel a queued job at once; ask the worker of a running one to stop; leave one that ended as it is."""
        with self.database.writing() as session:
            row = _row(session, job, lock=True)
            if row.state == "queued":
                row.state, row.ended = "cancelled", now()
            elif row.state == "running":
                row.stop_asked = True
            session.flush()
            return _job(row)

    def interrupt(self, *, worker: str | None = None, silent: float | None = None) -> list[str]:
        """Mark running jobs whose worker went away as interrupted and return their ids, oldest first.

        Args:
            worker: jobs of this worker, which is known to be dead; of any worker where it is not given.
            silent: only jobs without a heartbeat for this many seconds.
        """
        wanted = select(JobRow).where(JobRow.state == "running").order_by(JobRow.id)
        if worker is not None:
            wanted = wanted.where(JobRow.worker == searchable(worker))
        if silent is not None:
            wanted = wanted.where(JobRow.beat < written(datetime.now(UTC) - timedelta(seconds=silent)))
        with self.database.writing() as session:
            rows = list(session.scalars(wanted.with_for_update()))
            for row in rows:
                stopped = "cancelled" if row.stop_asked else "interrupted"
                row.state, row.ended, row.remaining = stopped, now(), None
                row.error = "" if row.stop_asked else "The process that worked on it ended before the job did."
            return [row.key for row in rows]

    def requeue(self, job: str) -> Job:
        """Queue an interrupted, failed or cancelled job again, at its old place; raise `InputError` for any other."""
        with self.database.writing() as session:
            row = _row(session, job, lock=True)
            if row.state not in ("interrupted", "failed", "cancelled"):
                raise InputError(f"The job {job} is {row.state}; only one that ended without a result is queued again.")
            row.state, row.ended, row.error, row.stop_asked = "queued", None, "", False
            session.flush()
            return _job(row)

    def _waiting(self, session: Session, owner: str) -> int:
        waiting = select(func.count()).select_from(JobRow).where(JobRow.owner == owner, JobRow.state.in_(WAITING))
        return session.scalars(waiting).one()

    def _change(self, session: Session, job: str, worker: str, values: Mapping[str, Any]) -> bool:
        mine = (JobRow.key == job, JobRow.worker == searchable(worker), JobRow.state == "running")
        changed = session.execute(update(JobRow).where(*mine).values(**values))
        return cast("CursorResult[Any]", changed).rowcount == 1


def _end(state: str, error: str = "") -> dict[str, Any]:
    return {"state": state, "ended": now(), "error": error, "remaining": None}


def _row(session: Session, job: str, lock: bool = False) -> JobRow:
    wanted = select(JobRow).where(JobRow.key == searchable(job))
    row = session.scalars(wanted.with_for_update() if lock else wanted).first()
    if row is None:
        raise InputError(f"No job {job[:40]!r} is in the store; list the jobs for those that are.")
    return row


def _job(row: JobRow) -> Job:
    return Job(
        id=row.key, owner=row.owner, task=row.task, model=row.model, parameters=json.loads(row.parameters),
        state=row.state, worker=row.worker, attempts=row.attempts, stop_asked=row.stop_asked, done=row.done,
        total=row.total, message=row.message, remaining=row.remaining, error=row.error, created=row.created,
        started=row.started, beat=row.beat, ended=row.ended, result=row.result_id,
    )  # fmt: skip


def _known(states: Collection[str]) -> list[str]:
    unknown = [state for state in states if state not in (*WAITING, *ENDED)]
    if unknown:
        raise InputError(f"Jobs got the states {unknown}; use {[*WAITING, *ENDED]}.")
    return list(states)


def _short(text: str, what: str) -> str:
    if len(text) > 200 or (not text and what != "owner"):
        raise InputError(f"A job got the {what} {text[:50]!r}; give 1 to 200 characters.")
    return searchable(text)


def _json(parameters: Mapping[str, Any]) -> str:
    def refuse(value: object) -> NoReturn:
        raise InputError(f"The parameters of a job hold a {type(value).__name__}; give plain JSON values.")

    try:
        return json.dumps(dict(parameters), allow_nan=False, default=refuse)
    except ValueError as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"The parameters of a job are no JSON ({error}); give plain JSON values.") from error
