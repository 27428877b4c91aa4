"""Killed workers and servers, a full disk, a database that goes away: nothing that was reported done is lost."""

from __future__ import annotations

import contextlib
import os
import random
import resource
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from pellucid.store import Store
from tests.web.served import CAPITAL, LONG, MODEL, Client, Server, serving


def seconds(number: int) -> dict:
    """A job long enough to be killed in the middle and short enough to be done again; each number is another one.

    The worker knows the scores of a prompt that it has seen, so an equal job would be over at once.
    """
    return {**LONG, "parameters": {"permutations": 500}, "prompt": " ".join([CAPITAL] * (3 + number))}


def family(server: Server) -> list[psutil.Process]:
    """The server and its workers."""
    own = psutil.Process(server.process.pid)
    return [own, *own.children(recursive=True)]


def begun(client: Client, job: str) -> dict:
    """Wait until a job has run some rows."""
    end = time.monotonic() + 120
    while True:
        found = client.get(f"/jobs/{job}")
        if found["state"] == "running" and found["done"]:
            return found
        assert found["state"] in ("queued", "running"), found
        assert time.monotonic() < end, found
        time.sleep(0.05)


@contextlib.contextmanager
def full(server: Server) -> Iterator[None]:
    """Let no file of the server grow: what a full disk does, for its processes alone."""
    pids = [process.pid for process in family(server)]
    before = [resource.prlimit(pid, resource.RLIMIT_FSIZE) for pid in pids]
    for pid, (_, hard) in zip(pids, before, strict=True):
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (1, hard))
    try:
        yield
    finally:
        for pid, limits in zip(pids, before, strict=True):
            resource.prlimit(pid, resource.RLIMIT_FSIZE, limits)


@contextlib.contextmanager
def away(path: Path) -> Iterator[None]:
    """Take a database away, with its journals, and put it back."""
    files = [path, *path.parent.glob(f"{path.name}-*")]
    for file in files:
        file.rename(file.with_name(f"away-{file.name}"))
    try:
        yield
    finally:
        for file in files:
            file.with_name(f"away-{file.name}").rename(file)


def path_of(server: Server) -> Path:
    return Path(server.log.name).with_suffix(".db")


@pytest.mark.slow
def test_a_killed_worker_is_replaced_and_its_job_done_again(server: Server, client: Client) -> None:
    job = client.post("/jobs", seconds(1))
    begun(client, job["id"])
    with Store.open(path_of(server)) as store:
        worker = store.jobs.get(job["id"]).worker
    os.kill(int(worker.split("/")[1]), signal.SIGKILL)
    done = client.until(job["id"], "done", "failed", "interrupted", seconds=120)
    assert (done["state"], done["attempts"]) == ("done", 2)
    assert client.get(f"/results/{done['result']}")["kind"] == "Scores"


def test_no_space_left_is_said_and_loses_nothing(server: Server, client: Client) -> None:
    found = client.answer("gradient_norm")
    with full(server):
        reply = client("POST", "/api/v1/jobs", {"model": MODEL, "method": "gradient_norm", "prompt": CAPITAL})
        assert reply.status == 503
        assert "no space left" in reply.json["error"]
        assert client.get(f"/results/{found['id']}") == found
    assert client.answer("gradient_norm")["values"] == found["values"]


@pytest.mark.slow
def test_a_disk_that_fills_during_a_job_leaves_a_whole_result_or_a_sentence(server: Server, client: Client) -> None:
    job = client.post("/jobs", seconds(2))
    begun(client, job["id"])
    with full(server):
        end = time.monotonic() + 5
        while time.monotonic() < end:
            assert client.get(f"/jobs/{job['id']}")["result"] is None
            time.sleep(0.2)
    ended = client.until(job["id"], "done", "failed", seconds=180)
    assert (ended["result"] is not None) == (ended["state"] == "done")
    assert ended["state"] == "done" or "space" in ended["message"]


@pytest.mark.slow
def test_a_result_waits_for_the_database(server: Server, client: Client) -> None:
    """The database goes away while a job runs and comes back after its end: the job is done, and done once."""
    job = client.post("/jobs", seconds(3))
    begun(client, job["id"])
    with away(path_of(server)):
        time.sleep(6)
        assert client("GET", f"/api/v1/jobs/{job['id']}").status == 503
    done = client.until(job["id"], "done", "failed", seconds=180)
    assert (done["state"], done["attempts"]) == ("done", 1)


def test_a_database_that_is_gone_and_back(server: Server, client: Client) -> None:
    found = client.answer("gradient_norm")
    runs = client.get("/runs")
    with away(path_of(server)):
        for method, path, body in (
            ("GET", "/runs", None),
            ("GET", f"/results/{found['id']}", None),
            ("POST", "/jobs", {"model": MODEL, "method": "gradient_norm", "prompt": CAPITAL}),
        ):
            reply = client(method, f"/api/v1{path}", body)
            assert reply.status == 503, reply
            assert "is gone" in reply.json["error"]
        assert client("GET", "/healthz").json["ok"] is False
        assert client.post(f"/models/{MODEL}/tokens", {"prompt": CAPITAL})["predictions"][0]["text"] == " Paris"
        assert not path_of(server).exists()  # an empty one in its place would hide the loss
    assert client.get("/runs") == runs
    assert client("GET", "/healthz").json["ok"] is True
    assert client.answer("gradient_norm")["values"] == found["values"]


def test_a_client_that_is_gone_stops_nothing(server: Server, client: Client) -> None:
    job = client.ask("occlusion", prompt=" ".join([CAPITAL] * 3))
    for path in (f"/api/v1/jobs/{job['id']}/events", "/api/v1/runs", "/api/v1/methods"):
        with socket.create_connection(("127.0.0.1", server.port)) as line:
            line.sendall(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
            line.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")  # leave with a reset
    assert client.until(job["id"], "done", "failed")["state"] == "done"


@pytest.mark.slow
def test_a_server_killed_in_the_middle_of_a_job(tmp_path: Path) -> None:
    """The next server goes on with the jobs of the killed one; nobody has to ask again."""
    with serving(tmp_path / "store.db") as first:
        done = first.client.answer("gradient_norm")
        job = first.client.post("/jobs", seconds(4))
        waiting = first.client.ask("gradient_norm")
        begun(first.client, job["id"])
        workers = family(first)[1:]
        first.kill()
        psutil.wait_procs(workers, timeout=10)
        assert not [process for process in workers if process.is_running() and process.status() != "zombie"]
    with serving(tmp_path / "store.db") as second:
        assert second.client.get(f"/results/{done['id']}") == done
        again = second.client.until(job["id"], "done", "failed", "interrupted", seconds=120)
        assert (again["state"], again["attempts"]) == ("done", 2)
        assert second.client.until(waiting["id"], "done")["attempts"] == 1
        assert not list(tmp_path.glob("*.jobs/*"))  # no journal is left


@pytest.mark.slow
def test_a_job_that_kills_its_worker_each_time_is_given_up(tmp_path: Path) -> None:
    with serving(tmp_path / "store.db") as server:
        job = server.client.post("/jobs", seconds(5))
        for _ in range(3):
            begun(server.client, job["id"])
            with Store.open(tmp_path / "store.db") as store:
                os.kill(int(store.jobs.get(job["id"]).worker.split("/")[1]), signal.SIGKILL)
            time.sleep(1)
        ended = server.client.until(job["id"], "interrupted", "done")
        assert (ended["state"], ended["attempts"], ended["result"]) == ("interrupted", 3, None)
        assert server.client.answer("gradient_norm")["kind"] == "Scores"


@pytest.mark.slow
def test_a_server_killed_in_the_middle_of_saving(tmp_path: Path) -> None:
    """Killed at random moments while many small results are saved: each that was seen done opens, none is half."""
    draw = random.Random(0)
    reported: dict[str, str] = {}
    asked: list[str] = []
    for _ in range(5):
        with serving(tmp_path / "store.db") as server:
            client = server.client
            client.get(f"/methods?model={MODEL}")
            asked += [client.ask("gradient_norm")["id"] for _ in range(40)]
            client.until(asked[-40], "done", seconds=60)
            end = time.monotonic() + draw.uniform(0, 1)
            while time.monotonic() < end:
                jobs = client.get("/jobs?state=done&limit=200")
                reported |= {job["id"]: job["result"] for job in jobs}
            server.kill()
    with serving(tmp_path / "store.db") as server:
        client = server.client
        ended = {job: client.until(job, "done", "failed", "interrupted", seconds=120) for job in asked}
        assert {job["state"] for job in ended.values()} == {"done"}
        assert len(reported) >= 5
        assert all(ended[job]["result"] == result for job, result in reported.items())
        values = [client.get(f"/results/{job['result']}")["values"] for job in ended.values()]
        assert all(value == values[0] for value in values)
        assert len({job["result"] for job in ended.values()}) == len(asked)
