"""Jobs: asked, listed, followed, cancelled."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from typing import Annotated, Literal

from fastapi import APIRouter, Query
from fastapi.sse import EventSourceResponse

from pellucid.core.errors import InputError, ResourceError
from pellucid.store import Job as Stored
from pellucid.store import Store
from pellucid.web import catalogue
from pellucid.web.answers import Job
from pellucid.web.bodies import JobBody, plain
from pellucid.web.hub import OWNER, Hub, NotFound, Unavailable, shown_job
from pellucid.web.routes.shared import ERRORS, JobId, TheHub

api = APIRouter(prefix="/jobs", responses=ERRORS)
OFTEN = 0.2


class TooMany(ResourceError):
    """As many jobs wait as the server keeps."""


@api.post("", status_code=202, operation_id="ask")
async def ask(hub: TheHub, body: JobBody) -> Job:
    """Queue a question and return its job; follow it at /jobs/{id}/events."""
    for name in (body.model, *body.models):
        await hub.ready(name)
    model = hub.models[body.model]
    await asyncio.to_thread(catalogue.check, body, model, hub.models, hub.settings.longest_prompt)
    request = plain(body)

    def enqueue(store: Store) -> Stored:
        if store.jobs.counts().get("queued", 0) >= hub.settings.most_waiting:
            raise TooMany(f"{hub.settings.most_waiting} jobs are waiting already; cancel one or ask again later.")
        return store.jobs.enqueue(body.method, body.model, request, owner=OWNER)

    job = await hub.stored(enqueue)
    hub.worker.tell(wake=True)
    hub.notice()
    return (await _shown(hub, [job]))[0]


@api.get("", operation_id="jobs")
async def jobs(
    hub: TheHub,
    state: Annotated[
        list[Literal["queued", "running", "done", "failed", "cancelled", "interrupted"]] | None, Query(max_length=6)
    ] = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    before: Annotated[
        str | None, Query(pattern="^[0-9a-f]{32}$", description="The last id of the page before.")
    ] = None,
) -> list[Job]:
    """List jobs, newest first."""
    found = await hub.stored(lambda store: store.jobs.recent(states=state, limit=limit, before=before))
    return await _shown(hub, found)


@api.get("/{job}", operation_id="job")
async def job(hub: TheHub, job: JobId) -> Job:
    """Tell how far a job is."""
    return (await _shown(hub, [await _found(hub, job)]))[0]


@api.delete("/{job}", operation_id="cancel")
async def cancel(hub: TheHub, job: JobId) -> Job:
    """Cancel a job: at once while it waits, between two batches while it runs; one that ended stays as it is."""
    await _found(hub, job)
    found = await hub.stored(lambda store: store.jobs.cancel(job))
    if found.state == "running":
        hub.cancel(job)
    hub.notice()
    return (await _shown(hub, [found]))[0]


@api.get("/{job}/events", operation_id="events", response_class=EventSourceResponse)
async def events(hub: TheHub, job: JobId) -> AsyncIterator[Job]:
    """Follow a job: server-sent events whose data is the job, at once and at every change, until it has ended."""
    await _found(hub, job)
    last = None
    with contextlib.suppress(Unavailable):  # the stream ends, and who asks again hears why
        async for found in hub.changes(job):
            shown = (await _shown(hub, [found]))[0]
            if shown != last:
                yield shown
                last = shown
                await asyncio.sleep(OFTEN)


async def _found(hub: Hub, job: str) -> Stored:
    try:
        return await hub.stored(lambda store: store.jobs.get(job))
    except InputError:
        raise NotFound(f"There is no job {job!r}; GET /api/v1/jobs lists them.") from None


async def _shown(hub: Hub, found: Sequence[Stored]) -> list[Job]:
    places: dict[str, int] = {}
    if any(one.state == "queued" for one in found):
        waiting = await hub.stored(lambda store: store.jobs.recent(states=["queued"], limit=10_000))
        places = {one.id: place for place, one in enumerate(reversed(waiting))}
    return [Job(**shown_job(one, places.get(one.id), hub.live.get(one.id))) for one in found]
