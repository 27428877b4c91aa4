from __future__ import annotations

from collections.abc import Iterator

import pytest

pytest.importorskip("fastapi")
pytest.importorskip("sqlalchemy")

from tests.web.served import Client, Server, serving


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One server for all tests that do not end it: its start costs more than all of them."""
    with serving(tmp_path_factory.mktemp("web") / "store.db") as found:
        yield found


@pytest.fixture
def client(server: Server) -> Client:
    return server.client
