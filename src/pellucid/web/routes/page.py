"""The page itself: what the front end's build left in `static`, or how to build it."""

from __future__ import annotations

from fastapi import APIRouter, FastAPI
from fastapi.responses import FileResponse, HTMLResponse, Response
from fastapi.staticfiles import StaticFiles

from pellucid.web.routes.shared import TheHub
from pellucid.web.settings import Settings

UNBUILT = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>pellucid: the page is not built</title></head>
<body><main><h1>The page is not built</h1>
<p>This copy of pellucid has no built page: it is made from the folder <code>frontend</code>, with Node. From the
project's folder run</p>
<pre>npm --prefix frontend ci
npm --prefix frontend run build</pre>
<p>and load this page again. The <a href="/api/v1/models">API</a> works without it.</p></main></body></html>
"""
page = APIRouter(include_in_schema=False)


@page.get("/")
async def index(hub: TheHub) -> Response:
    """Return the page, or a page that says which commands build it."""
    file = hub.settings.static / "index.html"
    return FileResponse(file, headers={"Cache-Control": "no-cache"}) if file.is_file() else HTMLResponse(UNBUILT)


class Assets(StaticFiles):
    """The built files; where there are none yet, nothing is found, and nothing fails."""

    async def check_config(self) -> None:
        """Accept a folder that is not there."""


def add_assets(app: FastAPI, settings: Settings) -> None:
    """Serve the files that the page names; starlette keeps to the folder, links out of it are not followed."""
    app.mount("/", Assets(directory=settings.static, check_dir=False), name="static")
