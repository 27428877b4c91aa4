"""The worker that takes jobs from the store, one after the other, and tells how far it is."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pellucid.core.errors import Cancelled, FileError, ModelError, PellucidError, ResourceError
from pellucid.core.results import Result
from pellucid.store import Job
from pellucid.web.connection import Connection
from pellucid.web.line import Line, load_models, messages, sentence

BACKWARD = 2.0  # what a row backward costs, in rows forward
OFTEN, LOOK, SAVE_AGAIN, SAVE_FOR = 0.1, 5.0, 2.0, 900.0


class Progress:
    """How far the present job is: told to the server at once, kept in the store with each heartbeat."""

    def __init__(self, line: Line, job: Job) -> None:
        self.line, self.job, self.cancel = line, job, threading.Event()
        self.started, self.told = time.monotonic(), 0.0
        self.done, self.total, self.message = 0, 0, "starting"
        self.fraction: float | None = None
        self.estimate: dict[str, float] | None = None
        self.record: Any = None

    def __call__(self, done: int, total: int) -> None:
        """Take note of rows that are done in the present step."""
        self.done, self.total, self.message = done, total, "running"
        if self.estimate is not None and self.record is not None:
            price = self.estimate["forwards"] + BACKWARD * self.estimate["backwards"]
            spent = self.record.forwards + BACKWARD * self.record.backwards
            if price > 0:
                self.fraction = max(self.fraction or 0.0, min(0.99, spent / price))
        if time.monotonic() - self.told > OFTEN:
            self.tell()

    @property
    def remaining(self) -> float | None:
        """Return the seconds that are left: by what is done, at first by the estimate."""
        spent = time.monotonic() - self.started
        if self.fraction is not None and self.fraction > 0.05:
            return spent * (1 - self.fraction) / self.fraction
        return None if self.estimate is None else max(0.0, self.estimate["seconds"] - spent)

    def tell(self, message: str = "") -> None:
        """Tell the server."""
        self.message = message or self.message
        self.told = time.monotonic()
        self.line.say(
            job=self.job.id, done=self.done, total=self.total, fraction=self.fraction, remaining=self.remaining,
            estimate=self.estimate, message=self.message,
        )  # fmt: skip


class JobWorker:
    """Claims jobs, computes them and saves their results."""

    def __init__(self, line: Line, config: Mapping[str, Any]) -> None:
        self.line, self.config = line, config
        self.name = f"{socket.gethostname()[:100]}/{os.getpid()}/{uuid.uuid4().hex[:12]}"
        self.connection = Connection(config["store"], config["folder"], config["patience"])
        self.wake = threading.Event()
        self.present: Progress | None = None
        self.cancelled: set[str] = set()

    def listen(self) -> None:
        """Hear what the server says; when it is gone, end at once: what is saved is whole, the rest is done again."""
        for message in messages():
            if "cancel" in message:
                self.cancelled.add(message["cancel"])
                if self.present is not None and self.present.job.id == message["cancel"]:
                    self.present.cancel.set()
            self.wake.set()
        os._exit(0)

    def run(self) -> None:
        """Work until the server is gone."""
        self.line.say(worker=self.name)
        threading.Thread(target=self.listen, daemon=True).start()
        self.subjects = load_models(self.line, self.config)
        self.line.say(ready=True)
        while True:
            self.wake.clear()
            try:
                job = self.connection.store().jobs.claim(self.name, models=list(self.subjects))
            except PellucidError:
                job = None
            if job is None:
                self.wake.wait(LOOK)
            else:
                self.work(job)

    def work(self, job: Job) -> None:
        """Work on one job, from its start to its end in the store."""
        progress = self.present = Progress(self.line, job)
        if job.id in self.cancelled:
            progress.cancel.set()
        progress.tell()
        ended = threading.Event()
        beating = threading.Thread(target=self._beat, args=(progress, ended), daemon=True)
        beating.start()
        try:
            result = self._computed(job, progress)
            self._until_stored(progress, lambda jobs: jobs.finish(job.id, self.name, result))
        except Cancelled:
            self._until_stored(progress, lambda jobs: jobs.stopped(job.id, self.name))
        except Exception as error:
            reason = sentence(error)["error"]
            self._until_stored(progress, lambda jobs: jobs.fail(job.id, self.name, reason))
        finally:
            ended.set()
            beating.join()
            self.present = None
            self._journal(job).unlink(missing_ok=True)
        self.line.say(ended=job.id)

    def _computed(self, job: Job, progress: Progress) -> Result:
        from pellucid.engine.planning import check_cancelled, controlled
        from pellucid.engine.store import resumable
        from pellucid.web.work import computed, estimated

        request = dict(job.parameters)
        for name in (request["model"], *request.get("models", [])):
            if isinstance(found := self.subjects.get(name, "it is not one of this server's"), str):
                raise ModelError(f"The model {name!r} cannot be asked, because {found}")
        subject = self.subjects[request["model"]]
        self._journal(job).parent.mkdir(parents=True, exist_ok=True)
        with controlled(progress, progress.cancel):
            check_cancelled()
            progress.tell("measuring the model")
            progress.estimate = estimated(subject, request)
            check_cancelled()
            progress.started = time.monotonic()
            progress.tell("running")
            with subject.recorded() as progress.record, resumable(self._journal(job)):
                return computed(self.subjects, request, lambda number: self.connection.store().get(number))

    def _journal(self, job: Job) -> Path:
        """Return the file of the scores of a job that may have to go on after a kill."""
        return Path(f"{self.connection.store_folder}.jobs") / f"{job.id}.scores"

    def _until_stored(self, progress: Progress, store: Any) -> None:
        """Write the end of a job; where the store is away or full, try again for a while and say so."""
        give_up = time.monotonic() + SAVE_FOR
        while True:
            try:
                store(self.connection.store().jobs)
                return
            except (FileError, ResourceError) as error:
                if time.monotonic() > give_up:
                    raise SystemExit(f"pellucid: a job could not be stored: {error}") from error
                progress.tell(f"The end of the job cannot be stored and is tried again: {error}")
                time.sleep(SAVE_AGAIN)

    def _beat(self, progress: Progress, ended: threading.Event) -> None:
        """Say in the store that the job goes on, and hear there whether it shall stop."""
        while not ended.wait(self.config["beat"]):
            with _patient():
                goes_on = self.connection.store().jobs.heartbeat(
                    progress.job.id, self.name, done=progress.done, total=progress.total, message=progress.message,
                    remaining=progress.remaining,
                )  # fmt: skip
                if not goes_on and not ended.is_set():
                    progress.cancel.set()


@contextlib.contextmanager
def _patient() -> Iterator[None]:
    """Let a store that is away be away: the next heartbeat tries again."""
    with contextlib.suppress(PellucidError):
        yield


def work(line: Line, config: Mapping[str, Any]) -> None:
    """Be the worker that takes jobs."""
    JobWorker(line, config).run()
