"""The cache on disk: what is kept, what is believed, and what a killed run pays again."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pellucid.core.errors import FileError, GeneratorError
from pellucid.generators import YES_NO, Cached, Limits, Reply, Request, ScriptedGenerator, ServerGenerator
from pellucid.generators.interface import digest
from tests.generators.fake_server import completion, serving

REPLY = Reply(("ja\ud800", "né"), (-0.1, float("-inf")), ("stop", "length"), 3, 4, 0.5, False, "log-probs")


class Counting:
    """Gives REPLY and counts."""

    name = "counting"

    def __init__(self) -> None:
        self.asked: list[Request] = []

    def generate(self, requests: Sequence[Request]) -> list[Reply]:
        self.asked += requests
        return [REPLY] * len(requests)


def test_an_answer_is_paid_once_and_comes_back_whole(tmp_path: Path) -> None:
    counting = Counting()
    request = Request("a\ud800", choices=YES_NO)
    first = Cached(counting, tmp_path).generate([request, Request("b"), request])
    assert first == [REPLY, REPLY, replace(REPLY, cached=True)]
    assert Cached(counting, tmp_path).generate([Request("b"), request]) == [replace(REPLY, cached=True)] * 2
    assert counting.asked == [request, Request("b")]
    files = sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*") if path.is_file())
    assert len(files) == 2
    assert all(len(f.parts) == 3 and f.name.startswith("".join(f.parts[:2])) and f.suffix == ".json" for f in files)


DIFFERENT = [
    Request("b"), Request("a", max_tokens=5), Request("a", temperature=0.1), Request("a", top_p=0.9),
    Request("a", stop="x"), Request("a", seed=1), Request("a", n=2), Request("a", choices=("x", "y")),
    Request([{"role": "user", "content": "a"}]), Request([{"role": "system", "content": "a"}]),
]  # fmt: skip


def test_every_part_of_the_request_and_of_the_generator_is_part_of_the_key(tmp_path: Path) -> None:
    cached = Cached(ScriptedGenerator(str.upper), tmp_path)
    others = [Cached(ScriptedGenerator(str.upper, skill=0.5), tmp_path), Cached(ScriptedGenerator(str.lower), tmp_path)]
    servers = [
        Cached(ServerGenerator(model, base_url=url, endpoint=endpoint), tmp_path)
        for model, url, endpoint in (
            ("m", "http://a/v1", "chat"), ("n", "http://a/v1", "chat"), ("m", "http://b/v1", "chat"),
            ("m", "http://a/v1", "completions"),
        )
    ]  # fmt: skip
    paths = [cached.path(request) for request in [Request("a"), *DIFFERENT]]
    paths += [other.path(Request("a")) for other in [*others, *servers]]
    assert len(set(paths)) == len(paths)
    for server in servers:
        server.generator.close()  # pyright: ignore[reportAttributeAccessIssue]


def test_no_key_is_written_down(tmp_path: Path) -> None:
    with serving(lambda *_: completion(["x"])) as fake:
        server = ServerGenerator("m", base_url=fake.url, api_key="secret")
        Cached(server, tmp_path).generate([Request("a")])
        server.close()
    assert all("secret" not in path.read_text() for path in tmp_path.rglob("*.json"))


def test_the_digest_is_the_sha256_of_canonical_json() -> None:
    # Written down, since a change would make every cache on every disk worthless.
    assert digest({"b": [1, 0.5, None], "a": "é"}) == digest({"a": "é", "b": (1, 0.5, None)})
    assert digest({}) == "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"


DAMAGES = ["half", "empty", "binary", "other key", "a text", "numbers", "a list", "no reply", "folder"]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_entry_is_asked_again_and_rewritten(tmp_path: Path, damage: str) -> None:
    counting = Counting()
    cached = Cached(counting, tmp_path)
    cached.generate([Request("a")])
    path = cached.path(Request("a"))
    whole = path.read_bytes()
    entry = json.loads(whole)
    if damage == "folder":
        path.unlink()
        path.mkdir()
        with pytest.raises(FileError):
            cached.generate([Request("a")])
        return
    other = {**entry, "key": {**entry["key"], "request": Request("b").as_json()}}
    text = {**entry, "reply": {**entry["reply"], "texts": "text"}}
    numbers = {**entry, "reply": {**entry["reply"], "texts": [1]}}
    path.write_bytes({
        "half": whole[: len(whole) // 2], "empty": b"", "binary": b"\xff\x00", "other key": json.dumps(other).encode(),
        "a text": json.dumps(text).encode(), "numbers": json.dumps(numbers).encode(),
        "a list": b"[]", "no reply": b'{"key": 1}',
    }[damage])  # fmt: skip
    assert cached.generate([Request("a")]) == [REPLY]
    assert path.read_bytes() == whole
    assert len(counting.asked) == 2


def test_a_full_disk_is_said_and_leaves_no_part_of_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    cached = Cached(Counting(), tmp_path)
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(FileError, match="No space left on device"):
        cached.generate([Request("a")])
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
    file = tmp_path / "file"
    file.write_text("x")
    with pytest.raises(FileError, match="cannot be made"):
        Cached(Counting(), file / "folder")


def test_answers_before_a_failure_are_kept(tmp_path: Path) -> None:
    class Failing(Counting):
        def stream(self, requests: Sequence[Request]) -> Iterator[tuple[int, Reply]]:
            yield 1, REPLY
            raise GeneratorError("The server is gone.")

    with pytest.raises(GeneratorError) as raised:
        Cached(Failing(), tmp_path).generate([Request("a"), Request("b"), Request("c")])
    assert raised.value.replies == [None, REPLY, None]  # pyright: ignore[reportAttributeAccessIssue]
    counting = Counting()
    Cached(counting, tmp_path).generate([Request("a"), Request("b"), Request("c")])
    assert [request.prompt for request in counting.asked] == ["a", "c"]


RUN = """
import sys
from pellucid.generators import Cached, Limits, Request, ServerGenerator
server = ServerGenerator("m", base_url=sys.argv[1], limits=Limits(concurrency=3))
replies = Cached(server, sys.argv[2]).generate([Request(f"question {i}") for i in range(40)])
print([reply.text for reply in replies])
"""


def run(url: str, folder: Path) -> subprocess.Popen[str]:
    source = Path(__file__).resolve().parents[2] / "src"
    environment = {**os.environ, "PYTHONPATH": str(source)}
    return subprocess.Popen(
        [sys.executable, "-c", RUN, url, str(folder)], env=environment, stdout=subprocess.PIPE, text=True
    )


def test_a_killed_run_resumes_and_pays_only_for_what_is_missing(tmp_path: Path) -> None:
    dead = threading.Event()

    def behaviour(body: dict[str, Any], number: int) -> Any:
        if number >= 15:  # three of them hang when the process is killed
            dead.wait(60)
        return completion([body["messages"][0]["content"].upper()])

    def kept() -> int:
        return len(list(tmp_path.rglob("*.json")))

    with serving(behaviour) as fake:
        killed = run(fake.url, tmp_path)
        until = time.monotonic() + 60
        while (kept() < 15 or len(fake.bodies) < 18) and time.monotonic() < until:
            time.sleep(0.02)
        os.kill(killed.pid, signal.SIGKILL)
        killed.communicate()
        assert killed.returncode == -signal.SIGKILL
        assert (kept(), len(fake.bodies)) == (15, 18)  # only the three under way were paid and lost
        dead.set()
        second = run(fake.url, tmp_path)
        printed, _ = second.communicate(timeout=60)
        assert second.returncode == 0
        assert len(fake.bodies) == 18 + 40 - 15
    assert printed.strip() == str([f"QUESTION {index}" for index in range(40)])


def test_several_processes_share_a_folder(tmp_path: Path) -> None:
    with serving(lambda body, n: completion([body["messages"][0]["content"].upper()])) as fake:
        both = [run(fake.url, tmp_path) for _ in range(2)]
        printed = {process.communicate(timeout=60)[0] for process in both}
        assert [process.returncode for process in both] == [0, 0]
        server = ServerGenerator("m", base_url=fake.url, limits=Limits(retries=0))
        replies = Cached(server, tmp_path).generate([Request(f"question {index}") for index in range(40)])
        server.close()
    assert printed == {str([f"QUESTION {index}" for index in range(40)]) + "\n"}
    assert all(reply.cached for reply in replies)
    assert len(list(tmp_path.rglob("*.json"))) == 40
    assert list(tmp_path.rglob(".part-*")) == []
