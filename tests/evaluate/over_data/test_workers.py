"""Workers share out a run: the same values, one record, and what happens when one raises, is killed or is stopped."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pellucid
from pellucid.core.errors import Cancelled, CapabilityError, ResourceError
from pellucid.evaluate.over_data import evaluate_dataset
from pellucid.evaluate.over_data.record import Record
from pellucid.evaluate.over_data.workers import check_workers, shared_out
from tests.evaluate.over_data.cases import ASKED, METHODS, METRICS, reviews

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="workers are forked, which needs Linux")


@pytest.fixture(scope="module")
def subject() -> Any:
    return pellucid.load("zoo:tiny-classifier")


def test_two_workers_find_what_one_process_finds(subject: Any, tmp_path: Path) -> None:
    rows = reviews(4)
    asked: dict[str, Any] = {"methods": METHODS, "metrics": METRICS, **ASKED}
    alone = evaluate_dataset(subject, rows, **asked)
    told: list[tuple[int, int]] = []
    watch = lambda done, total, left: told.append((done, total))  # noqa: E731
    both = evaluate_dataset(subject, rows, **asked, workers=2, record=tmp_path / "record", progress=watch)
    np.testing.assert_allclose(both.values, alone.values, atol=1e-5)
    assert both.computed == alone.computed
    assert [done for done, _ in told] == sorted(done for done, _ in told)
    assert told[-1][0] == told[-1][1]
    again = evaluate_dataset(subject, rows, **asked, workers=2, record=tmp_path / "record")
    assert again.computed == 0
    np.testing.assert_array_equal(again.values, both.values)


def test_a_run_that_is_stopped_leaves_no_worker_and_goes_on(subject: Any, tmp_path: Path) -> None:
    asked: dict[str, Any] = {"methods": METHODS, "metrics": METRICS, **ASKED, "record": tmp_path / "record"}

    def stop(done: int, total: int, left: float) -> None:
        if done == 7:
            raise Cancelled("enough")

    with pytest.raises(Cancelled):
        evaluate_dataset(subject, reviews(3), **asked, workers=2, progress=stop)
    with Record(tmp_path / "record") as kept:  # nobody else holds it
        before = len(kept.known)
    assert before >= 7
    found = evaluate_dataset(subject, reviews(3), **asked)
    assert found.computed + before == len(METHODS) * (1 + len(METRICS)) * 3 + 3


def test_a_worker_that_is_killed_is_an_error_with_the_cure() -> None:
    def compute(example: int, hand: Any) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    with pytest.raises(ResourceError, match="fewer workers"):
        list(shared_out([0, 1], 2, compute))


def test_what_a_worker_raises_is_raised_here() -> None:
    def compute(example: int, hand: Any) -> None:
        raise ResourceError("No memory is left; use a smaller model.")

    with pytest.raises(ResourceError, match="No memory is left"):
        list(shared_out([0], 2, compute))


def test_no_worker_outlives_a_parent_that_is_killed(tmp_path: Path) -> None:
    """Each worker writes its number and sleeps; the parent is killed, and the workers see that it is gone."""
    code = """
        import os, pathlib, sys, time
        from pellucid.evaluate.over_data.workers import Piece, shared_out
        def compute(example, hand):
            pathlib.Path(sys.argv[1], str(os.getpid())).touch()
            while True:
                time.sleep(0.05)
                hand(Piece("", "", {}, 0.0))
        for _ in shared_out([0, 1], 2, compute):
            if len(os.listdir(sys.argv[1])) == 2:
                os.kill(os.getpid(), 9)
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code), str(tmp_path)], timeout=120, check=False)
    numbers = [int(path.name) for path in tmp_path.iterdir()]
    assert len(numbers) == 2
    for _ in range(100):
        if not any(Path(f"/proc/{number}").exists() for number in numbers):
            return
        time.sleep(0.1)
    raise AssertionError("a worker goes on without its parent")


def test_models_that_cannot_be_shared_are_refused(subject: Any) -> None:
    class Elsewhere:
        name, device = "a model", "cuda:0"

    with pytest.raises(CapabilityError, match="use workers=1"):
        check_workers(Elsewhere(), 2)  # type: ignore[arg-type]
    check_workers(subject, 2)
