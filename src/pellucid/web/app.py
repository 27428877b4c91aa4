"""The application: routes, errors as one shape, and the guard before all of it."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncIterator
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from pellucid import __version__
from pellucid.core.errors import FileError, InputError, MissingExtra, PellucidError, ResourceError
from pellucid.web.hub import Hub, NotFound, Unavailable
from pellucid.web.processes import WorkerError
from pellucid.web.routes import asking, jobs, page, results
from pellucid.web.safety import Guard
from pellucid.web.settings import Settings

DESCRIPTION = (
    "Explain the language models that the server was started with. Requests that change something need the header "
    "`X-Pellucid: 1`; servers that other machines reach need `Authorization: Bearer <token>`. Every error is "
    '`{"error": one sentence, "kind": ...}`.'
)
# The first class that fits decides; what a user got wrong is 400.
STATUS: tuple[tuple[type[Exception], int], ...] = (
    (NotFound, 404),
    (jobs.TooMany, 429),
    (MissingExtra, 501),
    (Unavailable, 503),
    (ResourceError, 503),
    (FileError, 503),
    (WorkerError, 500),
    (InputError, 400),
    (PellucidError, 400),
)
log = logging.getLogger("pellucid.web")


def make_app(settings: Settings) -> FastAPI:
    """Return the application without its guard; its hub starts and ends with it."""

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        app.state.hub = Hub(settings)
        await app.state.hub.start()
        try:
            yield
        finally:
            await app.state.hub.close()

    app = FastAPI(
        title="pellucid", version=__version__, description=DESCRIPTION, lifespan=lifespan, docs_url=None,
        redoc_url=None, openapi_url="/api/v1/openapi.json",
    )  # fmt: skip
    app.include_router(asking.health)
    for router in (asking.api, jobs.api, results.api):
        app.include_router(router, prefix="/api/v1")
    app.include_router(page.page)
    page.add_assets(app, settings)
    _document_errors(app)
    app.add_exception_handler(PellucidError, _foreseen)
    app.add_exception_handler(RequestValidationError, _misshapen)
    app.add_exception_handler(HTTPException, _plain)
    app.add_exception_handler(Exception, _unforeseen)
    return app


def guarded(settings: Settings) -> Guard:
    """Return the application as it is served: with the guard before it."""
    return Guard(make_app(settings), settings)


def _document_errors(app: FastAPI) -> None:
    """Say in the document that errors are JSON, also where the answer itself is a file or a stream."""
    made = app.openapi

    def openapi() -> dict[str, Any]:
        document = made()
        shape = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
        for operations in document["paths"].values():
            for operation in operations.values():
                for status, response in operation["responses"].items():
                    if int(status) >= 400:
                        response["content"] = shape
        return document

    app.openapi = openapi  # type: ignore[method-assign]


def _answer(status: int, kind: str, sentence: str) -> JSONResponse:
    return JSONResponse({"error": sentence, "kind": kind}, status)


async def _foreseen(request: Request, error: Any) -> JSONResponse:
    status = next(status for kind, status in STATUS if isinstance(error, kind))
    return _answer(status, type(error).__name__, str(error))


async def _misshapen(request: Request, error: Any) -> JSONResponse:
    """Say what is wrong with a body, without repeating what was sent."""
    found = error.errors()
    words = [f"{'.'.join(str(part) for part in one['loc'][1:])[:200]}: {one['msg']}" for one in found[:3]]
    more = f" (and {len(found) - 3} more)" if len(found) > 3 else ""
    return _answer(422, "Shape", f"The request does not have the right shape: {'; '.join(words)}{more}.")


async def _plain(request: Request, error: Any) -> JSONResponse:
    if error.status_code == 404:
        return _answer(
            404, "NotFound", "There is nothing at this address; GET /api/v1/openapi.json lists what there is."
        )
    if error.status_code == 405:
        return _answer(405, "Method", f"{request.method} is not for this address; see /api/v1/openapi.json.")
    return _answer(error.status_code, "Http", f"{error.detail}.")


async def _unforeseen(request: Request, error: Any) -> JSONResponse:
    log.error("%s %s", request.method, request.url.path, exc_info=error)
    return _answer(500, "Unexpected", "Something unforeseen happened; the server's terminal says more.")
