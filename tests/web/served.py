"""A server in a process of its own, and a client that can send what no browser would."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CAPITAL = "The capital of France is"
MODEL = "zoo-tiny-lm"
LONG = {"model": MODEL, "method": "shapley_values", "parameters": {"permutations": 100_000}}


@dataclass
class Reply:
    status: int
    headers: Mapping[str, str]
    content: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.content)


@dataclass
class Client:
    """Asks a server; `headers` go with every request."""

    port: int
    headers: Mapping[str, str]

    def __call__(
        self, method: str, path: str, body: Any = None, *, headers: Mapping[str, str | None] | None = None,
        timeout: float = 60,
    ) -> Reply:  # fmt: skip
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        sent = {"Content-Type": "application/json", **self.headers, **(headers or {})}
        content = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        with contextlib.closing(connection):
            given = {key: value for key, value in sent.items() if value is not None}
            connection.request(method, path, content, given)
            answer = connection.getresponse()
            return Reply(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())

    def get(self, path: str, **more: Any) -> Any:
        reply = self("GET", f"/api/v1{path}", **more)
        assert reply.status == 200, reply
        return reply.json

    def post(self, path: str, body: Any, **more: Any) -> Any:
        reply = self("POST", f"/api/v1{path}", body, **more)
        assert reply.status < 300, reply
        return reply.json

    def ask(self, method: str, **more: Any) -> dict[str, Any]:
        """Queue a question about the capital, unless `more` says otherwise."""
        given = {} if {"pair", "input"} & set(more) else {"prompt": CAPITAL}
        return self.post("/jobs", {"model": MODEL, "method": method, **given, **more})

    def until(self, job: str, *states: str, seconds: float = 60) -> dict[str, Any]:
        """Wait until a job is in one of the states."""
        end = time.monotonic() + seconds
        while True:
            found = self.get(f"/jobs/{job}")
            if found["state"] in states:
                return found
            assert time.monotonic() < end, f"still {found}"
            time.sleep(0.1)

    def answer(self, method: str, **more: Any) -> dict[str, Any]:
        """Ask, wait, and return the result."""
        job = self.until(self.ask(method, **more)["id"], "done", "failed")
        assert job["state"] == "done", job
        return self.get(f"/results/{job['result']}")


class Server:
    """`pellucid serve` on a free port."""

    def __init__(self, store: Path, *options: str) -> None:
        command = [sys.executable, "-m", "pellucid", "serve", "--port", "0", "--store", str(store), *options]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        self.log = store.with_suffix(".log").open("ab")
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=self.log, env=environment, start_new_session=True
        )
        assert self.process.stdout is not None
        self.line = self.process.stdout.readline().decode()
        assert "http://" in self.line, store.with_suffix(".log").read_text()
        self.port = int(self.line.split("http://")[1].split("/")[0].rsplit(":", 1)[1])
        self.client = Client(self.port, {"X-Pellucid": "1"})

    def kill(self) -> None:
        """End the server as a power cut would."""
        os.kill(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
        self.process.wait(30)
        assert self.process.stdout is not None
        self.process.stdout.close()
        self.log.close()


@contextlib.contextmanager
def serving(store: Path, *options: str) -> Iterator[Server]:
    server = Server(store, *options)
    try:
        yield server
    finally:
        server.close()
