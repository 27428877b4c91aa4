"""A database that is gone, comes back, is locked or full says so, and keeps all that was reported as done."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import numpy as np
import pytest

from pellucid.core.errors import FileError, MissingExtra, ResourceError
from pellucid.core.results import Scores, Text

pytest.importorskip("sqlalchemy")
from sqlalchemy import event, text

from pellucid.store import Store
from tests.store import postgres
from tests.store.conftest import Place


def test_a_server_that_went_away_and_came_back(tmp_path: Path) -> None:
    if reason := postgres.missing():
        pytest.skip(reason)
    with postgres.server() as running, Store.open(running.url(), tmp_path, patience=2) as store:
        number = store.add(Text(text="before"))
        job = store.jobs.enqueue("t", "m", {})
        assert store.jobs.claim("w") is not None
        running.stop()
        for call in (
            lambda: store.jobs.finish(job.id, "w", Text(text="a")),
            lambda: store.get(number),
            lambda: store.jobs.claim("w"),
            lambda: Store.open(store.database.url.render_as_string(hide_password=False), tmp_path),
        ):
            with pytest.raises(ResourceError, match="server cannot be reached"):
                call()
        running.start()
        assert store.get(number) == Text(text="before")
        assert store.jobs.get(job.id).state == "running"
        assert store.jobs.finish(job.id, "w", Text(text="a")) is not None
        running.stop()  # a connection that was idle in the pool meanwhile is noticed
        running.start()
        assert store.jobs.get(job.id).state == "done"


def test_a_connection_that_breaks_at_the_commit_is_asked_again_and_saves_once(
    running: postgres.Server, tmp_path: Path
) -> None:
    with Store.open(running.url(), tmp_path) as store:
        job = store.jobs.enqueue("t", "m", {})
        store.jobs.claim("w")

        def cut(connection: object) -> None:
            event.remove(store.database._engine, "commit", cut)
            connection.exec_driver_sql("SELECT pg_terminate_backend(pg_backend_pid())")  # type: ignore[attr-defined]

        event.listen(store.database._engine, "commit", cut)
        with pytest.raises(ResourceError, match="cannot be reached"):
            store.jobs.finish(job.id, "w", Text(text="a"))
        number = store.jobs.finish(job.id, "w", Text(text="a"))
        assert number is not None
        assert store.jobs.finish(job.id, "w", Text(text="a")) == number
        assert [f.result for f in store.find()] == [Text(text="a")]


def test_a_locked_row_is_waited_for_and_then_said(running: postgres.Server, tmp_path: Path) -> None:
    with Store.open(running.url(), tmp_path, patience=0.3) as store, store.database._engine.connect() as other:
        number = store.add(Text())
        other.execute(text("SELECT id FROM pellucid_results FOR UPDATE"))
        with pytest.raises(ResourceError, match="another process is writing"):
            store.annotate(number, note="x")
        other.rollback()
        assert store.annotate(number, note="x").note == "x"


def test_a_file_that_is_taken_away_and_put_back(tmp_path: Path) -> None:
    path, aside = tmp_path / "store.db", tmp_path / "aside"
    with Store.open(path) as store:
        number = store.add(Text(text="kept"))
        aside.mkdir()
        for file in tmp_path.glob("store.db*"):
            if file.is_file():
                file.rename(aside / file.name)
        with pytest.raises(ResourceError, match="is away"):
            store.add(Text(text="lost?"))
        with pytest.raises(ResourceError, match="is away"):
            store.get(number)
        assert not path.exists()
        for file in aside.iterdir():
            file.rename(tmp_path / file.name)
        assert store.get(number) == Text(text="kept")
        assert store.get(store.add(Text(text="after"))) == Text(text="after")


def test_a_copy_in_the_place_of_the_file_is_read_and_written(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    with Store.open(path) as store:
        number = store.add(Text(text="kept"))
        with sqlite3.connect(path) as old, sqlite3.connect(tmp_path / "copy.db") as new:
            old.backup(new)
        old.close()
        new.close()
        for file in tmp_path.glob("store.db*"):
            if file.is_file():
                file.unlink()
        (tmp_path / "copy.db").rename(path)
        assert store.get(number) == Text(text="kept")
        added = store.add(Text(text="after"))
    with Store.open(path) as again:
        assert again.get(added) == Text(text="after")


def test_a_full_database_ends_a_job_neither_half_nor_whole(tmp_path: Path) -> None:
    with Store.open(tmp_path / "store.db") as store:
        job = store.jobs.enqueue("t", "m", {})
        store.jobs.claim("w")
        pages: list[int] = []

        def limit(connection: sqlite3.Connection, *_: object) -> None:
            pages.append(connection.execute("PRAGMA page_count").fetchone()[0])
            connection.execute(f"PRAGMA max_page_count={pages[-1] + 2}")

        store.database._engine.dispose()
        event.listen(store.database._engine, "connect", limit)
        large = Text(text="x" * 100_000)
        with pytest.raises(ResourceError, match="no space left"):
            store.jobs.finish(job.id, "w", large)
        assert (store.jobs.get(job.id).state, store.search()) == ("running", [])
        event.remove(store.database._engine, "connect", limit)
        store.database._engine.dispose()
        number = store.jobs.finish(job.id, "w", large)
        assert number is not None
        assert store.get(number) == large


def test_tensors_that_find_no_space_end_no_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import errno
    import os

    with Store.open(tmp_path / "store.db") as store:
        job = store.jobs.enqueue("t", "m", {})
        store.jobs.claim("w")

        def full(_: int) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(ResourceError, match="no space left"):
            store.jobs.finish(job.id, "w", Scores(values=np.ones(3)))
        monkeypatch.undo()
        assert (store.jobs.get(job.id).state, store.search()) == ("running", [])
        assert not list(store.folder.glob("*/*"))
        assert store.jobs.finish(job.id, "w", Scores(values=np.ones(3))) is not None


def test_the_password_of_a_url_is_never_in_an_error(tmp_path: Path) -> None:
    with pytest.raises((ResourceError, MissingExtra)) as caught:
        Store.open("postgresql://ann:secret@127.0.0.1:1/x", tmp_path, patience=0.1)
    assert "secret" not in str(caught.value)


def test_a_database_that_does_not_exist_is_no_server_that_is_away(running: postgres.Server, tmp_path: Path) -> None:
    with pytest.raises(FileError, match="does not exist"):
        Store.open(f"{running.url()}".replace("/t", "/none", 1), tmp_path)


def test_both_databases_are_the_ones_that_are_asked_for(place: Place) -> None:
    with Store.open(*place) as store, store.database.reading() as session:
        name = session.get_bind().dialect.name
        assert name == ("postgresql" if "://" in place[0] else "sqlite")
        if name == "sqlite":
            assert session.execute(text("PRAGMA journal_mode")).scalar() == "wal"
