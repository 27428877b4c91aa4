"""One server and one browser for all tests; each test gets a fresh window that watches what it asks for."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

import pytest

ROOT = Path(__file__).resolve().parents[2]
STATIC = ROOT / "src" / "pellucid" / "web" / "static"
MODEL = "zoo-tiny-lm"
FRANCE, ITALY = "The capital of France is", "The capital of Italy is"


@dataclass
class Server:
    """A running server: where it is, and the ids of the results that its store began with."""

    url: str
    ids: dict[str, str]


@dataclass
class Window:
    """A window of the browser, with what went wrong in it and what it asked of other origins."""

    page: Any
    server: Server
    troubles: list[str] = field(default_factory=list)
    foreign: list[str] = field(default_factory=list)

    def open(self, **state: Any) -> Any:
        """Open the page in a state, as a link does; wait until nothing is under way."""
        parts = {key: value if isinstance(value, str) else json.dumps(value) for key, value in state.items()}
        self.page.goto("about:blank")
        self.page.goto(f"{self.server.url}#{urlencode({'model': MODEL, **parts})}")
        self.page.wait_for_selector("[role=tablist]", timeout=90_000)  # the first test waits for the model
        self.settle()
        return self.page

    def settle(self) -> None:
        """Wait until no question is under way."""
        self.page.wait_for_timeout(150)
        self.page.wait_for_function(
            "() => !document.querySelector('.working') && ![...document.querySelectorAll('main [role=status]')]"
            ".some((e) => e.textContent.endsWith('…'))",
            timeout=60_000,
        )

    def state(self) -> str:
        """Return the part of the address that holds the state."""
        return urlsplit(self.page.url).fragment


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    """Leave torch alone: the models run in the server's process."""


@pytest.fixture(autouse=True)
def seed() -> int:
    """Draw nothing at random here."""
    return 0


@pytest.fixture(autouse=True)
def every_row_is_run() -> None:
    """Leave the engine alone: it runs in the server's process."""


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Start `pellucid serve` with the bundled model on a free port."""
    if not (STATIC / "index.html").is_file():
        pytest.skip("the page is not built; run make page")
    from tests.browser.samples import fill

    store = tmp_path_factory.mktemp("store") / "web.db"
    ids = fill(store)
    command = [sys.executable, "-m", "pellucid", "serve", "--model", "zoo:tiny-lm", "--port", "0"]
    process = subprocess.Popen([*command, "--store", str(store)], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        yield Server(line.split()[-1], ids)
    finally:
        process.terminate()
        process.wait(30)
        assert process.stdout is not None
        process.stdout.close()


@pytest.fixture
def window(chromium: Any, server: Server) -> Iterator[Callable[..., Window]]:
    """Open windows; afterwards nothing may have gone wrong in them, and nothing may have been asked of others."""
    opened: list[tuple[Any, Window]] = []

    def make(**settings: Any) -> Window:
        context = chromium.new_context(**{"viewport": {"width": 1280, "height": 900}, **settings})
        context.grant_permissions(["clipboard-read", "clipboard-write"])
        page = context.new_page()
        found = Window(page, server)
        own = urlsplit(server.url).netloc
        page.on("pageerror", lambda error: found.troubles.append(str(error)))
        page.on("console", lambda said: found.troubles.append(said.text) if said.type == "error" else None)
        page.on(
            "request",
            lambda asked: (
                found.foreign.append(asked.url)
                if urlsplit(asked.url).scheme in ("http", "https", "ws") and urlsplit(asked.url).netloc != own
                else None
            ),
        )
        opened.append((context, found))
        return found

    yield make
    for context, found in opened:
        context.close()
        assert not found.troubles
        assert not found.foreign
