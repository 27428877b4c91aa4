"""Stores on both kinds of database: a file of SQLite, and a database of a PostgreSQL server that the tests start."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.store import postgres

Place = tuple[str, Path]


@pytest.fixture(scope="session")
def running() -> Iterator[postgres.Server]:
    if reason := postgres.missing():
        pytest.skip(reason)
    with postgres.server() as found:
        yield found


@pytest.fixture(params=["sqlite", "postgresql"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """What `Store.open` is called with: where the database is, and the folder of tensors."""
    url = request.getfixturevalue("running").url() if request.param == "postgresql" else str(tmp_path / "store.db")
    return url, tmp_path / "tensors"
