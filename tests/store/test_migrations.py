"""A store of an older version is brought up to date once, whole or not at all, and keeps every run."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pellucid.core.encoding import as_json
from pellucid.core.errors import FileError
from pellucid.core.results import Provenance, Scores

pytest.importorskip("sqlalchemy")
pytest.importorskip("alembic")
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine, inspect, text

from pellucid.store import Store, records, upgrade
from pellucid.store.database import Database
from pellucid.store.schema import SCHEMA, Base
from tests.store.conftest import Place

# The tables as the first version made them, before there were steps; `{key}` is how a database numbers rows.
FIRST = """
    CREATE TABLE pellucid_store (id {key}, schema INTEGER NOT NULL, created VARCHAR(40) NOT NULL);
    CREATE TABLE pellucid_runs (id {key}, name VARCHAR(400) NOT NULL, config TEXT NOT NULL,
        config_hash VARCHAR(64) NOT NULL, finished BOOLEAN NOT NULL, created VARCHAR(40) NOT NULL, ended VARCHAR(40));
    CREATE UNIQUE INDEX pellucid_one_unfinished_run ON pellucid_runs (name, config_hash) WHERE {unfinished};
    CREATE TABLE pellucid_chunks (id {key}, run_id INTEGER NOT NULL REFERENCES pellucid_runs (id),
        key VARCHAR(400) NOT NULL, committed VARCHAR(40) NOT NULL, CONSTRAINT pellucid_chunk_once UNIQUE (run_id, key));
    CREATE TABLE pellucid_results (id {key}, chunk_id INTEGER NOT NULL REFERENCES pellucid_chunks (id),
        place INTEGER NOT NULL, kind VARCHAR(40) NOT NULL, methods TEXT NOT NULL, model TEXT NOT NULL,
        text TEXT NOT NULL, document TEXT NOT NULL, tensors VARCHAR(64) NOT NULL);
    CREATE INDEX ix_pellucid_results_chunk_id ON pellucid_results (chunk_id);
    CREATE INDEX ix_pellucid_results_model ON pellucid_results (model);
"""


def result(seed: int) -> Scores:
    values = np.random.default_rng(seed).normal(size=3)
    return Scores(title=f"text {seed}", values=values, provenance=Provenance(method="occlusion", model="m"))


def old_store(place: Place) -> None:
    """Make a store of the first version with three runs: two finished, one of which is empty, and one unfinished."""
    database = Database(place[0], 10)
    engine = create_engine(database.url)
    sqlite = engine.dialect.name == "sqlite"
    words = {
        "key": "INTEGER NOT NULL PRIMARY KEY" if sqlite else "SERIAL PRIMARY KEY",
        "unfinished": "finished = 0" if sqlite else "NOT finished",
    }
    with engine.begin() as connection:
        for statement in FIRST.format(**words).split(";")[:-1]:
            connection.execute(text(statement))
        connection.execute(text("INSERT INTO pellucid_store (schema, created) VALUES (1, '2026-01-01')"))
        for i, finished in enumerate((True, True, False)):
            config, digest = records.configuration({"i": i})
            connection.execute(
                text(
                    "INSERT INTO pellucid_runs (name, config, config_hash, finished, created, ended) "
                    "VALUES (:n, :c, :h, :f, '2026-01-01T00:00:00.000000+00:00', NULL)"
                ),
                {"n": f"run {i}", "c": config, "h": digest, "f": finished},
            )
        for i in range(12):
            run, key = (1, f"{i}") if i < 8 else (3, f"{i}")
            connection.execute(
                text("INSERT INTO pellucid_chunks (run_id, key, committed) VALUES (:r, :k, '2026-01-02')"),
                {"r": run, "k": key},
            )
            row: dict[str, Any] = records.columns(place[1], 0, result(i)) | {"chunk_id": i + 1}
            names = ", ".join(row)
            connection.execute(
                text(f"INSERT INTO pellucid_results ({names}) VALUES ({', '.join(f':{n}' for n in row)})"), row
            )
    engine.dispose()
    database.close()


def test_the_first_version_is_upgraded_and_keeps_every_run(place: Place) -> None:
    old_store(place)
    with Store.open(*place) as store:
        assert [(run.name, run.finished, run.done) for run in store.runs()] == [
            ("run 0", True, 8),
            ("run 1", True, 0),
            ("run 2", False, 4),
        ]
        unfinished = store.run("run 2", {"i": 2})
        assert unfinished.number == store.runs()[2].number
        assert unfinished.pending(["8", "x"]) == ["x"]
        found = store.search(limit=99)
        assert [s.number for s in found] == list(range(12, 0, -1))
        assert [as_json(store.get(s.number)) for s in found] == [as_json(result(s.number - 1)) for s in found]
        assert {(s.note, s.tags) for s in found} == {("", ())}
        assert unfinished.save("x", result(99))
        assert store.search(limit=1)[0].number == 13
        job = store.jobs.enqueue("t", "m", {})
    with Store.open(*place) as again:
        assert again.jobs.get(job.id).state == "queued"
        assert len(again.search(limit=99)) == 13


def test_what_the_steps_make_is_what_the_tables_say(place: Place) -> None:
    with Store.open(*place) as store, store.database._engine.connect() as connection:
        options = {"compare_type": True, "compare_server_default": True}
        context = MigrationContext.configure(connection, opts={**options, "version_table": upgrade.VERSION_TABLE})
        assert compare_metadata(context, Base.metadata) == []
        assert context.get_current_revision() == f"{SCHEMA:04d}"


def test_the_newest_step_is_the_version_that_is_declared() -> None:
    folder = ScriptDirectory(str(Path(upgrade.__file__).parent / "migrations"))
    assert folder.get_heads() == [f"{SCHEMA:04d}"]
    assert [step.revision for step in folder.walk_revisions()] == [f"{n:04d}" for n in range(SCHEMA, 0, -1)]


def test_an_upgrade_that_fails_leaves_the_store_as_it_was(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    old_store(place)
    from alembic import op

    def fail(*_: object, **__: object) -> None:
        raise FileError("in the middle")

    monkeypatch.setattr(op, "create_index", fail)  # after the results have their new columns, before there are jobs
    with pytest.raises(FileError, match="in the middle"):
        Store.open(*place)
    monkeypatch.undo()
    engine = create_engine(Database(place[0], 10).url)
    with engine.connect() as connection:
        seen = inspect(connection)
        assert "note" not in [column["name"] for column in seen.get_columns("pellucid_results")]
        assert "pellucid_jobs" not in seen.get_table_names()
        assert upgrade.version(connection) == 1
    engine.dispose()
    with Store.open(*place) as store:
        assert len(store.search(limit=99)) == 12


def test_processes_that_open_an_old_store_at_once_upgrade_it_once(place: Place) -> None:
    old_store(place)
    seen: list[int] = []

    def work() -> None:
        with Store.open(*place) as store:
            seen.append(len(store.search(limit=99)))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == [12] * 4


def test_a_store_of_a_newer_version_is_refused(place: Place) -> None:
    with Store.open(*place) as store, store.database.writing() as session:
        session.execute(text(f"UPDATE pellucid_store SET schema = {SCHEMA + 1}"))
    with pytest.raises(FileError, match="update pellucid"):
        Store.open(*place)
