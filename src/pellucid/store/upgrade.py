"""Bring a database to the tables of this version: once, under a lock, in one transaction that happens or does not."""

from __future__ import annotations

import threading
from pathlib import Path

from sqlalchemy import Connection, inspect, select, text, update

from pellucid.store.schema import SCHEMA, StoreRow, now

VERSION_TABLE = "pellucid_migrations"
_LOCK = 7_355_608_112  # any number that other programs are unlikely to lock
_ONE_AT_A_TIME = threading.Lock()  # Alembic's context is one for the whole process


def version(connection: Connection) -> int:
    """Return the version of the tables of a database, 0 where there are none."""
    if StoreRow.__tablename__ not in inspect(connection).get_table_names():
        return 0
    return connection.execute(select(StoreRow.schema)).scalar() or 0


def upgrade(connection: Connection) -> None:
    """Run the steps in `migrations` that the database lacks; the caller commits, or undoes all of them.

    The caller's transaction locks a SQLite file for writing; other databases take an advisory lock here.
    """
    if connection.dialect.name == "postgresql":
        connection.execute(text(f"SELECT pg_advisory_xact_lock({_LOCK})"))
    before = version(connection)
    if before >= SCHEMA:
        return
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    config.attributes["connection"] = connection
    with _ONE_AT_A_TIME:
        if before and VERSION_TABLE not in inspect(connection).get_table_names():  # made before there were steps
            command.stamp(config, f"{before:04d}")
        command.upgrade(config, "head")
    if before:
        connection.execute(update(StoreRow).values(schema=SCHEMA))
    else:
        connection.execute(StoreRow.__table__.insert().values(id=1, schema=SCHEMA, created=now()))  # type: ignore[attr-defined]
