"""Models, methods, the tokens of a prompt, and the health of the server."""

from __future__ import annotations

import asyncio
from typing import Annotated

from fastapi import APIRouter, Query

from pellucid import __version__
from pellucid.core.errors import PellucidError
from pellucid.web import catalogue
from pellucid.web.answers import Health, Method, Model, TokensAnswer
from pellucid.web.bodies import TokensBody, plain
from pellucid.web.routes.shared import ERRORS, ModelId, TheHub

api = APIRouter(responses=ERRORS)
health = APIRouter()


@health.get("/healthz", operation_id="health")
async def healthz(hub: TheHub) -> Health:
    """Say whether the server works; needs no token."""
    try:
        counts = await hub.stored(lambda store: store.jobs.counts())
    except PellucidError as error:
        return Health(ok=False, version=__version__, store=str(error), waiting=0, running=0)
    waiting, running = counts.get("queued", 0), counts.get("running", 0)
    return Health(ok=True, version=__version__, store="", waiting=waiting, running=running)


@api.get("/models", operation_id="models")
async def models(hub: TheHub) -> list[Model]:
    """List the models that the server was started with; sizes are there once a model is ready."""
    return [Model(**model) for model in hub.models.values()]


@api.get("/methods", operation_id="methods")
async def methods(
    hub: TheHub, model: Annotated[str | None, Query(max_length=200, description="The id of a model.")] = None
) -> list[Method]:
    """List every method, metric and study, and whether it can be asked of a model."""
    chosen = await hub.ready(model) if model is not None else None
    found = await asyncio.to_thread(catalogue.methods, chosen)
    return [Method(**one) for one in found]


@api.post("/models/{model}/tokens", operation_id="tokens")
async def tokens(hub: TheHub, model: ModelId, body: TokensBody) -> TokensAnswer:
    """Split a prompt into tokens and tell what the model says next, with edits where some are given."""
    await hub.ready(model)
    catalogue.check_length(body, hub.settings.longest_prompt)
    answer = await hub.quick.ask(task="tokens", model=model, body=plain(body))
    return TokensAnswer(**answer)
