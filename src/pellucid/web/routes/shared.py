"""What the routes share: the hub of the running server, ids, and the errors that a route may answer with."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Depends, Path, Request

from pellucid.web.answers import Error
from pellucid.web.hub import Hub

ERRORS: dict[int | str, dict[str, Any]] = {
    400: {"model": Error, "description": "The request does not fit what is asked."},
    401: {"model": Error, "description": "The access token is missing or wrong."},
    403: {"model": Error, "description": "Asked by a page of another origin, or a write without X-Pellucid."},
    404: {"model": Error, "description": "There is none of this id."},
    413: {"model": Error, "description": "The body is too large."},
    421: {"model": Error, "description": "The Host header names another server."},
    422: {"model": Error, "description": "The body or a parameter has the wrong shape."},
    429: {"model": Error, "description": "Too many jobs are waiting."},
    500: {"model": Error, "description": "Something unforeseen happened."},
    501: {"model": Error, "description": "An optional package is not installed."},
    503: {"model": Error, "description": "The store or a worker cannot be reached at the moment."},
}
# The largest number of a result that every database can compare with.
MOST = 2**31 - 2


def hub_of(request: Request) -> Hub:
    """Return the hub of the server that got a request."""
    hub: Hub = request.app.state.hub
    return hub


TheHub = Annotated[Hub, Depends(hub_of)]
ModelId = Annotated[str, Path(max_length=200, examples=["zoo-tiny-lm"])]
JobId = Annotated[str, Path(pattern="^[0-9a-f]{32}$", examples=["0123456789abcdef0123456789abcdef"])]
ResultId = Annotated[int, Path(ge=0, le=MOST, examples=[1])]
