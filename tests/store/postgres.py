"""A PostgreSQL server of the tests: a cluster in a temporary folder, reached by a socket there, gone afterwards."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

USER = "postgres"


def programs() -> Path | None:
    """Return the folder of `initdb` and `pg_ctl`, None where PostgreSQL is not installed."""
    found = shutil.which("pg_ctl")
    known = sorted(Path("/usr/lib/postgresql").glob("*/bin/pg_ctl"))
    path = Path(found) if found else known[-1] if known else None
    return path.resolve().parent if path else None


def missing() -> str:
    """Return why no server can be started here, "" where one can."""
    if programs() is None:
        return "PostgreSQL is not installed (Debian: apt-get install postgresql)"
    try:
        import psycopg  # noqa: F401 - only whether it is there
    except ImportError:
        return "psycopg is not installed"
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        import pwd

        try:
            pwd.getpwnam(USER)
        except KeyError:
            return f"PostgreSQL refuses to run as root, and there is no user {USER!r}"
    return ""


class Server:
    """A running server: `url()` makes a new database, `stop` and `start` take it away and bring it back."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.user = USER if os.geteuid() == 0 else None
        if self.user:
            shutil.chown(folder, USER, USER)
        self._call("initdb", "-D", str(folder / "data"), "-U", USER, "-A", "trust", "--no-sync", "-E", "UTF8")
        self.start()

    def start(self) -> None:
        options = f"-F -c listen_addresses='' -c unix_socket_directories='{self.folder}' -c max_connections=40"
        data = str(self.folder / "data")
        self._call("pg_ctl", "-D", data, "-w", "-l", str(self.folder / "log"), "-o", options, "start")

    def stop(self) -> None:
        self._call("pg_ctl", "-D", str(self.folder / "data"), "-w", "-m", "immediate", "stop")

    def url(self) -> str:
        import psycopg

        name = f"t{uuid.uuid4().hex}"
        with psycopg.connect(f"host={self.folder} user={USER} dbname=postgres", autocommit=True) as connection:
            connection.execute(f'CREATE DATABASE "{name}"')  # type: ignore[arg-type] - a name of our own
        return f"postgresql://{USER}@/{name}?host={self.folder}"

    def _call(self, program: str, *arguments: str) -> None:
        found = programs()
        assert found is not None
        done = subprocess.run(
            [str(found / program), *arguments], check=False, cwd="/", stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, timeout=120,
            env={"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8"},
            user=self.user, group=self.user,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr


@contextmanager
def server() -> Iterator[Server]:
    """Yield a running server; afterwards it is stopped and its files are gone."""
    folder = Path(tempfile.mkdtemp(prefix="pg"))  # a socket's path may have about 100 characters
    try:
        running = Server(folder)
        try:
            yield running
        finally:
            if (folder / "data" / "postmaster.pid").exists():
                running.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
