"""What every test gets: a fixed seed, no network, one thread, and models that must come back unchanged."""

from __future__ import annotations

import os
import random
import shutil
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.state import changed, model_state

os.environ.update(HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1", TOKENIZERS_PARALLELISM="false", MPLBACKEND="Agg")
os.environ.setdefault("OMP_NUM_THREADS", "1")

ROOT = Path(__file__).resolve().parent.parent
LOCAL = {"127.0.0.1", "localhost", "::1"}


def _only_local(connect: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap a connect method of sockets so that it refuses every other machine."""

    def guarded(self: socket.socket, address: Any, *rest: Any) -> Any:
        if self.family in (socket.AF_INET, socket.AF_INET6) and address[0] not in LOCAL:
            raise RuntimeError(f"A test tried to reach {address[0]}; tests use no network.")
        return connect(self, address, *rest)

    return guarded


@pytest.fixture(autouse=True, scope="session")
def no_network() -> Iterator[None]:
    """Refuse connections to other machines for the whole session."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", _only_local(socket.socket.connect))
        patch.setattr(socket.socket, "connect_ex", _only_local(socket.socket.connect_ex))
        yield


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    """Keep torch on one thread: tests run side by side, and tiny models are faster so."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    """Start the installed Chromium, once for all tests of a process: Playwright runs one event loop there."""
    driver = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if found is None:
        pytest.skip("no Chromium is installed (Debian: apt-get install chromium)")
    with driver.sync_playwright() as playwright:
        options = ["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"]
        browser = playwright.chromium.launch(executable_path=found, args=options)
        yield browser
        browser.close()


@pytest.fixture(autouse=True)
def seed() -> int:
    """Start every test from the same state of the random generators; return the seed."""
    import torch

    random.seed(0)
    np.random.seed(0)  # noqa: NPY002 - third parties still draw from the global generator
    torch.manual_seed(0)
    return 0


@pytest.fixture
def kept_scores() -> None:
    """Let a test use scores that the engine already knows, as every user does."""


@pytest.fixture(autouse=True)
def every_row_is_run(request: pytest.FixtureRequest) -> Iterator[None]:
    """Run every variant anew, so that a test which compares two ways of scoring never sees one of them twice."""
    from pellucid.engine import store

    with ExitStack() as stack:
        if "kept_scores" not in request.fixturenames:
            stack.enter_context(store.unused())
        yield


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Return the folder of development data sets, or skip: the project commits none of them."""
    named = os.environ.get("PELLUCID_DATA")
    folder = Path(named) if named else ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("the development data sets are absent; set PELLUCID_DATA to their folder")
    return folder


@pytest.fixture
def unchanged() -> Iterator[Callable[[Any], Any]]:
    """Watch models: `unchanged(model)` returns it, and the test fails if anything about it differs afterwards."""
    watched: list[tuple[Any, dict[str, Any]]] = []

    def watch(model: Any) -> Any:
        watched.append((model, model_state(model)))
        return model

    yield watch
    for model, before in watched:
        different = changed(before, model_state(model))
        assert not different, f"the {type(model).__name__} came back with other {', '.join(different)}"
