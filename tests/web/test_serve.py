"""The command and what it refuses before anything is served; the page where it is not built."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from typer.main import get_command

from pellucid.cli.app import app
from pellucid.web.app import make_app
from pellucid.web.routes import page
from pellucid.web.settings import Settings


def refused(capsys: pytest.CaptureFixture[str], *options: str) -> str:
    with pytest.raises(SystemExit) as left:
        get_command(app).main(["serve", *options])
    assert left.value.code == 2
    return capsys.readouterr().err


def test_what_cannot_be_served_is_said_in_a_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    store = str(tmp_path / "store.db")
    assert "without an access token" in refused(capsys, "--host", "0.0.0.0", "--store", store)
    assert "at least 16" in refused(capsys, "--token", "short", "--store", store)
    assert "given twice" in refused(capsys, "--model", "zoo:tiny-lm", "--model", "zoo:tiny-lm")
    assert "cannot listen" in refused(capsys, "--host", "192.0.2.1", "--token", "x" * 20, "--store", store)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert f"port {port}" in refused(capsys, "--port", str(port), "--store", store)


def test_a_page_that_is_not_built_says_how(tmp_path: Path) -> None:
    settings = Settings(models={"m": "zoo:tiny-lm"}, store="unused", static=tmp_path / "none")
    hub = cast("Any", SimpleNamespace(settings=settings))
    text = bytes(asyncio.run(page.index(hub)).body).decode()
    assert "npm --prefix frontend ci" in text
    assert "npm --prefix frontend run build" in text


@pytest.mark.parametrize("built", [True, False])
def test_assets_are_served_where_they_are_built_and_nothing_beside_them(tmp_path: Path, built: bool) -> None:
    folder = tmp_path / "static"
    (tmp_path / "secret.js").write_text("secret")
    if built:
        (folder / "assets").mkdir(parents=True)
        (folder / "assets" / "page.js").write_text("1")
        (folder / "link.js").symlink_to(tmp_path / "secret.js")
    settings = Settings(models={"m": "zoo:tiny-lm"}, store="unused", static=folder)
    found: dict[str, int] = {}

    async def ask(path: str) -> None:
        async def send(message: Any) -> None:
            if message["type"] == "http.response.start":
                found[path] = message["status"]

        sent = [{"type": "http.request", "body": b"", "more_body": False}]

        async def receive() -> Any:
            return sent.pop() if sent else {"type": "http.disconnect"}

        scope = {
            "type": "http", "method": "GET", "path": path, "raw_path": path.encode(), "query_string": b"",
            "headers": [(b"host", b"127.0.0.1")], "root_path": "", "scheme": "http", "http_version": "1.1",
        }  # fmt: skip
        await make_app(settings)(cast("Any", scope), receive, send)

    for path in ("/assets/page.js", "/assets", "/link.js", "/../secret.js", "/assets/../../secret.js"):
        asyncio.run(ask(path))
    assert found.pop("/assets/page.js") == (200 if built else 404)
    assert set(found.values()) == {404}
