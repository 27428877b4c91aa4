"""Stored results: opened, sliced, downloaded, searched, annotated, deleted, brought in."""

from __future__ import annotations

import asyncio
import base64
import functools
import json
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import JSONResponse

from pellucid.core import encoding, results
from pellucid.core.errors import FileError, InputError
from pellucid.store import Store
from pellucid.store.search import Saved
from pellucid.web import documents, files
from pellucid.web.answers import Code, Result, Run, Runs
from pellucid.web.bodies import RunChange
from pellucid.web.hub import Hub, NotFound
from pellucid.web.routes.shared import ERRORS, MOST, ResultId, TheHub
from pellucid.web.safety import FILE_POLICY

api = APIRouter(responses=ERRORS)
OPEN = 4  # results that are kept open, for slices of one come in rows
Field = Annotated[str, Query(max_length=300, description="values, std_error, weights, or the name of a tensor.")]
Bytes = {"content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}}


@functools.lru_cache(maxsize=OPEN)
def _opened(store: Store, number: int) -> results.Result:
    """Return a result, which never changes, from the few that were opened last."""
    return store.get(number)


async def _result(hub: Hub, number: int) -> tuple[results.Result, Saved]:
    def both(store: Store) -> tuple[results.Result, Saved]:
        try:
            saved = store.saved(number)
        except InputError:
            raise NotFound(f"There is no result {number}; GET /api/v1/runs lists them.") from None
        return _opened(store, number), saved

    return await hub.stored(both)


@api.get("/results/{result}", operation_id="result", response_model=Result)
async def result(hub: TheHub, result: ResultId) -> JSONResponse:
    """Return a result as JSON; large arrays are left out and marked, see /values."""
    found, saved = await _result(hub, result)
    document = await asyncio.to_thread(documents.document, found)
    return JSONResponse({**document, "id": str(result), "note": saved.note, "tags": list(saved.tags)})


@api.get(
    "/results/{result}/values",
    operation_id="values",
    response_class=Response,
    responses={200: {"description": "Little-endian entries in C order: value = offset + scale * entry.", **Bytes}},
)
async def values(
    hub: TheHub,
    result: ResultId,
    field: Field = "values",
    at: Annotated[str, Query(max_length=200, description="Fixed axes.", examples=["layer:1,head:0"])] = "",
    part: Annotated[int | None, Query(ge=0, le=10_000, description="A part of an explanation.")] = None,
    dtype: Literal["uint8", "float16", "float32"] = "uint8",
) -> Response:
    """Return one slice of an array as bytes; the headers X-Shape, X-Dtype, X-Scale and X-Offset say how to read it."""
    found, _ = await _result(hub, result)
    packed = await asyncio.to_thread(lambda: documents.sliced(documents.part_of(found, part), field, at, dtype))
    headers = {
        "X-Shape": ",".join(map(str, packed.shape)),
        "X-Dtype": packed.dtype,
        "X-Scale": repr(packed.scale),
        "X-Offset": repr(packed.offset),
        "Cache-Control": "private, max-age=3600",
    }
    return Response(packed.content, media_type="application/octet-stream", headers=headers)


@api.get(
    "/results/{result}/file.{format}",
    operation_id="file",
    response_class=Response,
    responses={200: {"description": "The file.", **Bytes}},
)
async def file(hub: TheHub, result: ResultId, format: Literal["json", "csv", "svg", "png", "html"]) -> Response:
    """Return a result as a file to keep; the JSON file can be uploaded again."""
    await _result(hub, result)
    content = base64.b64decode(await hub.files.ask(task="file", result=result, format=format))
    headers = {
        "Content-Disposition": f'attachment; filename="pellucid-{result}.{format}"',
        "Content-Security-Policy": FILE_POLICY,
    }
    return Response(content, media_type=files.TYPES[format], headers=headers)


@api.get("/results/{result}/code", operation_id="code")
async def code(hub: TheHub, result: ResultId) -> Code:
    """Return the lines of Python that compute the result again."""
    found, saved = await _result(hub, result)
    source = hub.settings.models.get(str(saved.config.get("model")), found.provenance.model)
    return Code(code=files.python(found, saved.config, source))


@api.get("/runs", operation_id="runs")
async def runs(
    hub: TheHub,
    model: Annotated[str | None, Query(max_length=200, description="The id or the name of a model.")] = None,
    method: Annotated[str | None, Query(max_length=100)] = None,
    q: Annotated[str | None, Query(max_length=1000, description="A part of the title or the prompt.")] = None,
    tag: Annotated[str | None, Query(max_length=100)] = None,
    since: Annotated[str | None, Query(max_length=40, description="For example 2026-11-01.")] = None,
    until: Annotated[str | None, Query(max_length=40)] = None,
    before: Annotated[int | None, Query(ge=0, le=MOST, description="`next` of the page before.")] = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
) -> Runs:
    """Search stored results, newest first."""
    name = hub.settings.models.get(model, model) if model is not None else None
    found = await hub.stored(
        lambda store: store.search(
            model=name, method=method, text=q, tag=tag, since=since, until=until, before=before, limit=limit + 1
        )
    )
    page, more = found[:limit], found[limit:]
    return Runs(runs=[_run(saved) for saved in page], next=str(page[-1].number) if more else None)


@api.patch("/runs/{result}", operation_id="annotate")
async def annotate(hub: TheHub, result: ResultId, body: RunChange) -> Run:
    """Write a note on a result, or tags in place of the old ones."""

    def change(store: Store) -> Saved:
        old = _saved(store, result).tags
        gone = [tag for tag in old if body.tags is not None and tag not in body.tags]
        return store.annotate(result, note=body.note, tags=body.tags or (), untag=gone)

    return _run(await hub.stored(change))


@api.delete("/runs/{result}", status_code=204, operation_id="forget")
async def forget(hub: TheHub, result: ResultId) -> None:
    """Delete a result, for good."""

    def delete(store: Store) -> None:
        _saved(store, result)
        store.delete(result)

    await hub.stored(delete)


@api.post(
    "/upload",
    status_code=201,
    operation_id="upload",
    openapi_extra={
        "requestBody": {
            "required": True,
            "description": "A file that /results/{id}/file.json gave.",
            "content": {"application/json": {"schema": {"type": "object"}}},
        }
    },
)
async def upload(hub: TheHub, request: Request) -> Run:
    """Keep a result that was downloaded as JSON, here or elsewhere; it is read as data, never run."""
    content = await request.body()
    found = await asyncio.to_thread(_uploaded, content)

    def keep(store: Store) -> Saved:
        try:
            return store.saved(store.add(found, "upload", {"upload": True}))
        except (TypeError, ValueError, AttributeError) as error:  # fields that are no texts
            raise InputError(f"The upload holds a field that does not fit ({error}); download it again.") from None

    return _run(await hub.stored(keep))


def _uploaded(content: bytes) -> results.Result:
    """Return the result in an upload, after all that a view will do with it was tried."""
    try:
        found = encoding.from_json(content.decode("utf-8"))
        json.dumps(documents.document(found), allow_nan=False)
    except UnicodeDecodeError as error:
        raise InputError(f"The upload is no UTF-8 text ({error.reason}); send a file that file.json gave.") from None
    except (FileError, RecursionError, MemoryError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"The upload cannot be read: {error}") from None
    return found


def _saved(store: Store, number: int) -> Saved:
    try:
        return store.saved(number)
    except InputError:
        raise NotFound(f"There is no result {number}; GET /api/v1/runs lists them.") from None


def _run(saved: Saved) -> Run:
    title, _, prompt = saved.text.partition("\n")
    asked: Any = saved.config.get("parameters")
    request: dict[str, Any] = asked if isinstance(asked, dict) else {}
    target = request.get("target")
    return Run(
        id=str(saved.number), title=title, method=saved.methods[0] if saved.methods else "",
        methods=list(saved.methods), kind=saved.kind, model=saved.model, prompt=prompt[:1000],
        target="" if target is None else str(target)[:200], created=saved.saved, note=saved.note, tags=list(saved.tags),
        request=request or None,
    )  # fmt: skip
