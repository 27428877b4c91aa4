"""What the server knows: its models, its workers, its store, and how far each job is."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from pellucid.core.errors import InputError, PellucidError
from pellucid.store import Job, Store
from pellucid.web.connection import Connection
from pellucid.web.processes import Process
from pellucid.web.settings import Settings

Answer = TypeVar("Answer")
MOST_ATTEMPTS = 3
BEAT, SILENT, LOOK, GRACE = 2.0, 20.0, 5.0, 20.0
OWNER = "web"
TITLE = 200


class NotFound(InputError):
    """What a request names is not there."""


class Unavailable(PellucidError):
    """The store or a worker cannot be reached at the moment."""


class Hub:
    """The state of one server. Work in the store is done in threads, so that no request waits for the disk."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.connection = Connection(settings.store, settings.folder, settings.patience)
        self.models: dict[str, dict[str, Any]] = {
            key: {"id": key, "name": _shown(name), "state": "loading"} for key, name in settings.models.items()
        }
        shared = {
            "store": settings.store, "folder": settings.folder, "patience": settings.patience, "beat": BEAT,
            "models": settings.models, "trust_remote_code": settings.trust_remote_code,
        }  # fmt: skip
        self.quick = Process({**shared, "lane": "quick"}, self._heard_model)
        self.files = Process({**shared, "lane": "files", "models": {}}, lambda _: None)
        self.worker = Process({**shared, "lane": "jobs"}, self._heard_job, self._worker_ended)
        self.worker_name = ""
        self.live: dict[str, dict[str, Any]] = {}
        self._changed, self._version = asyncio.Condition(), 0
        self._threads = ThreadPoolExecutor(8, thread_name_prefix="store")
        self._tasks: set[asyncio.Task[Any]] = set()

    async def start(self) -> None:
        """Start the workers and take up the jobs that a killed server left."""
        self.quick.start()
        self.worker.start()
        self.spawn(self._look_after())

    async def close(self) -> None:
        """End the workers; a job that runs is taken up by the next server."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(self.quick.close(), self.worker.close(), self.files.close())
        with contextlib.suppress(PellucidError):
            await self.stored(lambda store: self._interrupt(store, self.worker_name))
        self._threads.shutdown()
        self.connection.close()

    async def stored(self, call: Callable[[Store], Answer]) -> Answer:
        """Do something in the store, in a thread.

        Raises:
            InputError: what is named is not there or does not fit.
            Unavailable: the store cannot be reached, is full, or is busy for too long.
        """

        def run() -> Answer:
            try:
                return call(self.connection.store())
            except (InputError, Unavailable):
                raise
            except PellucidError as error:
                raise Unavailable(str(error)) from error

        return await asyncio.get_running_loop().run_in_executor(self._threads, run)

    def model(self, name: str) -> dict[str, Any]:
        """Return a model by id; raise `NotFound` for one that the server was not started with."""
        if name not in self.models:
            raise NotFound(f"There is no model {name[:60]!r}; the server has {', '.join(self.models)}.")
        return self.models[name]

    async def ready(self, name: str) -> dict[str, Any]:
        """Return a model once it is loaded; raise `Unavailable` where it could not be."""
        self.model(name)
        async with self._changed:
            await self._changed.wait_for(lambda: self.models[name]["state"] != "loading")
        if self.models[name]["state"] == "failed":
            raise Unavailable(f"The model {name!r} could not be loaded: {self.models[name]['error']}")
        return self.models[name]

    async def changes(self, job: str) -> AsyncIterator[Job]:
        """Yield a job as it is now and whenever something changes about it, until it has ended."""
        while True:
            seen = self._version  # before the read, so that no change falls between the two
            found = await self.stored(lambda store: store.jobs.get(job))
            yield found
            if found.state not in ("queued", "running"):
                return
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK), self._changed:
                    await self._changed.wait_for(lambda: self._version != seen)  # noqa: B023 - waited for at once

    def notice(self) -> None:
        """Wake everyone who waits for a change."""
        self._version += 1

        async def wake() -> None:
            async with self._changed:
                self._changed.notify_all()

        self.spawn(wake())

    def spawn(self, work: Any) -> None:
        """Run a coroutine beside the requests."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def cancel(self, job: str) -> None:
        """Tell the worker to stop a job; end the worker where it does not hear within a while."""
        self.worker.tell(cancel=job)
        self.spawn(self._insist(job))

    async def _insist(self, job: str) -> None:
        await asyncio.sleep(GRACE)
        with contextlib.suppress(PellucidError):
            found = await self.stored(lambda store: store.jobs.get(job))
            if found.state == "running" and found.worker == self.worker_name:
                self.worker.kill()

    def _heard_model(self, message: dict[str, Any]) -> None:
        if "model" in message:
            self.models[message["model"]] |= {key: value for key, value in message.items() if key != "model"}
            self.notice()

    def _heard_job(self, message: dict[str, Any]) -> None:
        if "worker" in message:
            self.worker_name = message["worker"]
        if "job" in message:
            self.live[message["job"]] = message
        if "ended" in message:
            self.live.pop(message["ended"], None)
        if "model" not in message:
            self.notice()

    def _worker_ended(self) -> None:
        self.live.clear()
        self.spawn(self._take_up(self.worker_name))

    async def _look_after(self) -> None:
        """Take up jobs whose workers are gone: known to be dead on this machine, or silent for long."""
        while True:
            await self._take_up(None)
            await asyncio.sleep(LOOK)

    async def _take_up(self, worker: str | None) -> None:
        with contextlib.suppress(PellucidError):  # a store that is away is asked again
            if await self.stored(lambda store: self._interrupt(store, worker)):
                self.worker.tell(wake=True)
                self.notice()

    def _interrupt(self, store: Store, worker: str | None) -> int:
        """Mark the jobs of dead workers and queue those again that were not begun too often; return how many."""
        gone: set[str] = set()
        if worker:
            gone.update(store.jobs.interrupt(worker=worker))
        for name in {job.worker for job in store.jobs.recent(states=["running"])} - {self.worker_name, worker}:
            gone.update(store.jobs.interrupt(worker=name, silent=None if _dead(name) else SILENT))
        for key in gone:
            job = store.jobs.get(key)
            if job.state == "interrupted" and job.attempts < MOST_ATTEMPTS:
                store.jobs.requeue(key)
        return len(gone)


def _dead(worker: str) -> bool:
    """Say whether a worker was one of this machine and its process is gone."""
    host, _, rest = worker.partition("/")
    pid = rest.partition("/")[0]
    if host != socket.gethostname()[:100] or not pid.isdecimal():
        return False
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return False


def _shown(name: str) -> str:
    """Return the name of a model as a page shows it: a folder by its last part, for its path is nobody's business."""
    return Path(name).name if Path(name).is_absolute() else name


def _since(job: Job) -> float | None:
    """Return the seconds that a job has run for, or ran for."""
    if job.started is None:
        return None
    end = datetime.now(UTC) if job.ended is None else datetime.fromisoformat(job.ended)
    return (end - datetime.fromisoformat(job.started)).total_seconds()


def shown_job(job: Job, place: int | None, live: dict[str, Any] | None) -> dict[str, Any]:
    """Return a job as the API tells it: what the store knows, and what the worker said last."""
    told = live if live is not None and job.state == "running" else {}
    request = job.parameters
    given = request.get("prompt") or request.get("pair", {}).get("clean") or ""
    text = given if isinstance(given, str) else " / ".join(message["content"] for message in given)
    running = job.state == "running"
    return {
        "id": job.id, "state": job.state, "place": place, "model": job.model, "method": job.task,
        "prompt": text[:TITLE], "created": job.created, "started": job.started, "ended": job.ended,
        "attempts": job.attempts, "done": told.get("done", job.done) if running else None,
        "total": told.get("total", job.total) or None if running else None, "fraction": told.get("fraction"),
        "seconds": _since(job), "remaining": told.get("remaining", job.remaining),
        "estimate": told.get("estimate"), "message": job.error or (told.get("message", job.message) if running else ""),
        "result": None if job.result is None else str(job.result),
    }  # fmt: skip
