"""A run that is killed at random moments loses nothing, doubles nothing, and ends with the values of a whole one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pellucid.core.errors import FileError
from pellucid.evaluate.over_data.record import HEAD, Record
from tests.evaluate.over_data import killed

ROOT = Path(__file__).resolve().parent.parent.parent.parent
unix = pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are forked and killed")


def kill(times: int, examples: int, folder: Path) -> dict[str, int]:
    command = [sys.executable, "-m", "tests.evaluate.over_data.killed", str(times), str(folder), str(examples)]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    counts: dict[str, int] = json.loads(done.stdout.splitlines()[-1])
    print(counts)
    return counts


@unix
def test_a_few_kills(tmp_path: Path) -> None:
    counts = kill(8, 10, tmp_path)
    assert counts["kills"] == 8
    assert counts["pieces"] > 0
    assert counts["lost"] == counts["doubled"] == counts["changed"] == 0


@unix
@pytest.mark.slow
def test_a_hundred_kills(tmp_path: Path) -> None:
    counts = kill(100, 30, tmp_path)
    assert counts["kills"] == 100
    assert counts["lost"] == counts["doubled"] == counts["changed"] == 0


def test_a_record_cut_at_any_byte_keeps_every_whole_line(tmp_path: Path) -> None:
    path = tmp_path / "record"
    entries: list[dict[str, Any]] = [{"values": {"value": 0.1}}, {"failed": "Ünïcode \n and a line break"}, {"a": 3}]
    with Record(path) as record:
        for place, entry in enumerate(entries):
            record.write(str(place), entry)
    content = path.read_bytes()
    ends = [i + 1 for i, byte in enumerate(content) if byte == 10]
    assert len(ends) == 1 + len(entries)
    for cut in range(len(content) + 1):
        path.write_bytes(content[:cut])
        whole = sum(end <= cut for end in ends[1:])
        with Record(path) as record:
            assert record.known == {str(place): entries[place] for place in range(whole)}
            record.write("more", {"a": 1})
        assert [line["key"] for line in killed.lines(path)] == [*map(str, range(whole)), "more"]


def test_a_damaged_line_is_left_out_and_counted(tmp_path: Path) -> None:
    path = tmp_path / "record"
    with Record(path) as record:
        record.write("a", {"x": 1})
        record.write("b", {"x": 2})
    path.write_bytes(path.read_bytes().replace(b'"x": 1', b'"x": 7'))
    with Record(path) as record:
        assert (record.known, record.damaged) == ({"b": {"x": 2}}, 1)


def test_a_file_of_something_else_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "precious.csv"
    path.write_text("a,b\n1,2\n", encoding="utf-8")
    with pytest.raises(FileError, match="holds no record of an evaluation"), Record(path):
        pass
    assert path.read_text(encoding="utf-8") == "a,b\n1,2\n"


def test_two_runs_cannot_write_to_one_record(tmp_path: Path) -> None:
    path = tmp_path / "record"
    with Record(path), pytest.raises(FileError, match="Another run is writing"), Record(path):
        pass
    assert path.read_bytes() == HEAD
