"""A scoring run that is killed continues where it stopped: nothing written is run again, nothing is lost."""

from __future__ import annotations

import errno
import os
import random
import subprocess
import sys
import textwrap
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

import pellucid
from pellucid.core import appending
from pellucid.core.errors import FileError
from pellucid.engine import store
from pellucid.engine.journal import HEAD, HEADER, Journal
from tests import plain
from tests.tiny import TINY

pytestmark = pytest.mark.usefixtures("kept_scores")
ROOT = Path(__file__).resolve().parents[2]
PROMPT = [5 + i % 90 for i in range(40)]
KILLS = 2

WORKER = """
    import os, sys, time
    import numpy as np, torch
    torch.set_num_threads(1)
    import pellucid
    from pellucid.engine import scoring, store
    from tests.tiny import TINY

    log = os.open(sys.argv[2], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    store.FIRST_TOKENS, store.PART_SECONDS = 120, 0.0
    native = scoring._run

    def slow(subject, tokens, readout, variants):
        scores = native(subject, tokens, readout, variants)
        os.write(log, "".join(f"{hash(v)}\\n" for v in variants).encode())
        time.sleep(0.02)
        return scores

    scoring._run = slow
    subject = pellucid.load(TINY["llama"]())
    os.write(log, b"")
    prompt = [5 + i % 90 for i in range(40)]
    with store.resumable(sys.argv[1]):
        found = pellucid.run("occlusion", subject, prompt, target=7, replacement="delete")
    np.save(sys.argv[3], found.scores)
    print(found.provenance.forwards)
"""


def lines(log: Path) -> list[str]:
    return log.read_text().split() if log.exists() else []


@pytest.mark.slow
def test_a_run_killed_at_random_moments_resumes_with_nothing_lost_or_run_again(tmp_path: Path) -> None:
    draw = random.Random(0)
    path, log, scores = tmp_path / "scores", tmp_path / "run", tmp_path / "scores.npy"
    environment = os.environ | {"PYTHONPATH": f"{ROOT}/src:{ROOT}", "PYTHONHASHSEED": "0", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", textwrap.dedent(WORKER), str(path), str(log), str(scores)]
    kills = 0
    while kills < KILLS:
        before = len(lines(log))
        worker = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
        while len(lines(log)) < before + draw.randint(4, 10) and worker.poll() is None:
            time.sleep(0.002)
        time.sleep(draw.random() * 0.02)
        worker.kill()
        if worker.wait() == 0:
            break
        kills += 1
    assert kills == KILLS
    assert not scores.exists()
    last = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)

    run = Counter(lines(log))
    assert len(run) == 41  # the whole prompt and each token left out
    assert run.total() <= 41 + kills * 4  # at most the part under way (3 or 4 rows of 40 tokens) is run again
    assert 0 < int(last.stdout) < 41
    anew = pellucid.run("occlusion", pellucid.load(TINY["llama"]()), PROMPT, target=7, replacement="delete")
    np.testing.assert_allclose(np.load(scores), anew.scores, atol=1e-5)


def test_a_second_run_with_the_same_file_runs_nothing(tmp_path: Path) -> None:
    with store.resumable(tmp_path / "deep" / "scores"):
        first = pellucid.run("occlusion", pellucid.load(TINY["llama"]()), plain.IDS, target=plain.TARGET)
    with store.resumable(tmp_path / "deep" / "scores"):
        again = pellucid.run("occlusion", pellucid.load(TINY["llama"]()), plain.IDS, target=plain.TARGET)
        other = pellucid.run("occlusion", pellucid.load(TINY["neox-parallel"]()), plain.IDS, target=plain.TARGET)
    assert (first.provenance.forwards, again.provenance.forwards, other.provenance.forwards) == (7, 0, 7)
    np.testing.assert_array_equal(first.scores, again.scores)


def test_a_file_cut_off_anywhere_keeps_its_whole_records(tmp_path: Path) -> None:
    path = tmp_path / "scores"
    entries = [(bytes([i]) * 16, np.arange(float(i + 1))) for i in range(5)]
    with Journal(path) as written:
        written.write(entries)
    content = path.read_bytes()
    ends = len(HEADER) + np.cumsum([HEAD.size + 8 * len(scores) for _, scores in entries])
    assert ends[-1] == len(content)
    for length in range(len(content) + 1):
        path.write_bytes(content[:length])
        with Journal(path) as opened:
            assert len(opened.known) == int((ends <= length).sum())
            assert all(np.array_equal(opened.known[key], scores) for key, scores in entries if key in opened.known)
            opened.write([(b"x" * 16, np.array([7.0]))])
        with Journal(path) as opened:
            assert len(opened.known) == int((ends <= length).sum()) + 1
            assert opened.known[b"x" * 16] == 7.0


def test_a_record_with_a_wrong_bit_is_dropped(tmp_path: Path) -> None:
    path = tmp_path / "scores"
    with Journal(path) as written:
        written.write([(b"a" * 16, np.array([1.0])), (b"b" * 16, np.array([2.0]))])
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with Journal(path) as opened:
        assert list(opened.known) == [b"a" * 16]


@pytest.mark.skipif(appending.fcntl is None, reason="this system locks files otherwise")
def test_two_runs_do_not_write_to_one_file(tmp_path: Path) -> None:
    with (
        store.resumable(tmp_path / "scores"),
        pytest.raises(FileError, match="Another run is writing"),
        store.resumable(tmp_path / "scores"),
    ):
        pass
    with store.resumable(tmp_path / "scores"):
        pass


def test_a_disk_that_fails_at_the_last_step_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(number: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with Journal(tmp_path / "scores") as journal:
        monkeypatch.setattr(os, "fsync", fails)
        with pytest.raises(FileError, match="Input/output error"):
            journal.write([(b"a" * 16, np.array([1.0]))])


def test_a_path_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="cannot be written"), store.resumable(tmp_path):
        pass
