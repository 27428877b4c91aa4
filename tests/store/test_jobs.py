"""Jobs are claimed once, end once together with their result, and tell when their worker went away."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from pellucid.core import saving
from pellucid.core.encoding import as_json
from pellucid.core.errors import InputError, ResourceError
from pellucid.core.results import Provenance, Scores, Text

pytest.importorskip("sqlalchemy")
from pellucid.store import Jobs, Store
from tests.store.conftest import Place


@pytest.fixture
def store(place: Place) -> Iterator[Store]:
    with Store.open(*place) as opened:
        yield opened


@pytest.fixture
def jobs(store: Store) -> Jobs:
    return store.jobs


def result(text: str = "cat") -> Scores:
    return Scores(title=text, values=np.arange(3.0), provenance=Provenance(method="occlusion", model="m"))


def test_a_job_from_the_queue_to_its_result(store: Store, jobs: Jobs) -> None:
    asked = jobs.enqueue("occlusion", "m", {"prompt": "a \x00 \ud800", "steps": [1, None]}, owner="ann")
    assert (asked.state, asked.result, asked.started) == ("queued", None, None)
    claimed = jobs.claim("w")
    assert claimed is not None
    assert (claimed.id, claimed.state, claimed.worker, claimed.attempts) == (asked.id, "running", "w", 1)
    assert claimed.parameters == {"prompt": "a \x00 \ud800", "steps": [1, None]}
    assert jobs.heartbeat(asked.id, "w", done=2, total=5, message="batch 2", remaining=1.5)
    seen = jobs.get(asked.id)
    assert (seen.done, seen.total, seen.message, seen.remaining) == (2, 5, "batch 2", 1.5)
    number = jobs.finish(asked.id, "w", result())
    assert number is not None
    ended = jobs.get(asked.id)
    assert (ended.state, ended.result, ended.done, ended.remaining) == ("done", number, 5, None)
    assert ended.ended is not None
    assert as_json(store.get(number)) == as_json(result())
    assert jobs.claim("w") is None
    assert jobs.finish(asked.id, "w", result()) == number
    assert jobs.finish(asked.id, "other", result()) is None
    assert sum(1 for _ in store.find()) == 1
    assert jobs.counts() == {"done": 1}


def test_the_queue_is_first_come_first_served_with_a_visible_place(jobs: Jobs) -> None:
    ids = [jobs.enqueue("t", "ab"[i % 2], {"i": i}).id for i in range(4)]
    assert [jobs.place(i) for i in ids] == [0, 1, 2, 3]
    other = jobs.claim("w", models=["b"])
    assert other is not None
    assert other.id == ids[1]
    assert [jobs.place(i) for i in ids] == [0, None, 1, 2]
    claimed = [jobs.claim("w") for _ in range(4)]
    assert [job and job.id for job in claimed] == [ids[0], ids[2], ids[3], None]


def test_an_owner_has_a_limit(jobs: Jobs) -> None:
    first = jobs.enqueue("t", "m", {}, owner="ann", most=2)
    jobs.enqueue("t", "m", {}, owner="ann", most=2)
    with pytest.raises(ResourceError, match="'ann' has 2 jobs"):
        jobs.enqueue("t", "m", {}, owner="ann", most=2)
    jobs.enqueue("t", "m", {}, owner="bob", most=2)
    jobs.cancel(first.id)
    jobs.enqueue("t", "m", {}, owner="ann", most=2)
    assert [job.owner for job in jobs.recent(owner="ann")] == ["ann"] * 3


def test_cancelling_a_queued_a_running_and_an_ended_job(jobs: Jobs, store: Store) -> None:
    queued, running = jobs.enqueue("t", "m", {}), jobs.enqueue("t", "m", {})
    assert jobs.cancel(queued.id).state == "cancelled"
    claimed = jobs.claim("w")
    assert claimed is not None
    assert claimed.id == running.id
    assert jobs.cancel(running.id).state == "running"
    assert not jobs.heartbeat(running.id, "w")
    assert jobs.stopped(running.id, "w")
    assert jobs.get(running.id).state == "cancelled"
    assert jobs.finish(running.id, "w", result()) is None
    assert jobs.cancel(running.id).state == "cancelled"
    assert list(store.find()) == []


def test_a_worker_that_went_away_is_noticed_and_can_no_longer_write(jobs: Jobs, store: Store) -> None:
    job = jobs.enqueue("t", "m", {})
    jobs.claim("dead")
    assert jobs.interrupt(silent=60) == []
    assert jobs.interrupt(worker="other") == []
    assert jobs.interrupt(worker="dead") == [job.id]
    seen = jobs.get(job.id)
    assert seen.state == "interrupted"
    assert "ended before the job did" in seen.error
    assert not jobs.heartbeat(job.id, "dead", done=3)
    assert jobs.finish(job.id, "dead", result()) is None
    assert not jobs.fail(job.id, "dead", "late")
    assert jobs.requeue(job.id).state == "queued"
    again = jobs.claim("alive")
    assert again is not None
    assert (again.id, again.attempts, again.error) == (job.id, 2, "")
    assert jobs.finish(job.id, "dead", result()) is None
    assert jobs.finish(job.id, "alive", result()) is not None
    assert sum(1 for _ in store.find()) == 1
    with pytest.raises(InputError, match="is done"):
        jobs.requeue(job.id)


def test_a_silent_worker_is_marked_and_one_asked_to_stop_is_cancelled(jobs: Jobs) -> None:
    silent, stopping = jobs.enqueue("t", "m", {}), jobs.enqueue("t", "m", {})
    jobs.claim("w")
    jobs.claim("w")
    jobs.cancel(stopping.id)
    time.sleep(0.05)
    jobs.enqueue("t", "m", {})
    assert jobs.interrupt(silent=0.04) == [silent.id, stopping.id]
    assert [jobs.get(j.id).state for j in (silent, stopping)] == ["interrupted", "cancelled"]


def test_a_failure_is_kept_as_a_sentence(jobs: Jobs) -> None:
    job = jobs.enqueue("t", "m", {})
    jobs.claim("w")
    assert not jobs.fail(job.id, "other", "no")
    assert jobs.fail(job.id, "w", "The model said \x00 no.")
    seen = jobs.get(job.id)
    assert (seen.state, seen.error) == ("failed", "The model said \ufffd no.")


def test_jobs_are_listed_newest_first_in_pages(jobs: Jobs) -> None:
    ids = [jobs.enqueue("t", "m", {}).id for _ in range(5)]
    jobs.claim("w")
    page = jobs.recent(limit=2)
    assert [j.id for j in page] == [ids[4], ids[3]]
    assert [j.id for j in jobs.recent(limit=9, before=page[-1].id)] == [ids[2], ids[1], ids[0]]
    assert [j.id for j in jobs.recent(states=["running"])] == [ids[0]]


def test_what_cannot_be_a_job_is_refused(jobs: Jobs) -> None:
    for parameters in ({"a": object()}, {"a": float("nan")}, {"a": {1, 2}}):
        with pytest.raises(InputError, match="plain JSON values"):
            jobs.enqueue("t", "m", parameters)
    with pytest.raises(InputError, match="1 to 200"):
        jobs.enqueue("", "m", {})
    with pytest.raises(InputError, match="No job"):
        jobs.get("\x00' OR 1=1")
    with pytest.raises(InputError, match="states"):
        jobs.recent(states=["gone"])


def test_many_workers_claim_each_job_once(place: Place, store: Store) -> None:
    ids = {store.jobs.enqueue("t", "m", {}).id for _ in range(24)}
    claimed: list[str] = []

    def work(name: str) -> None:
        with Store.open(*place) as own:
            while (job := own.jobs.claim(name)) is not None:
                claimed.append(job.id)
                assert own.jobs.finish(job.id, name, Text(text=job.id)) is not None

    threads = [threading.Thread(target=work, args=(f"w{n}",)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(claimed) == 24
    assert set(claimed) == ids
    assert {job.state for job in store.jobs.recent()} == {"done"}
    assert sorted(r.result.text for r in store.find() if isinstance(r.result, Text)) == sorted(ids)


WORKER = """
    import os, sys
    import numpy as np
    from pellucid.core.results import Scores
    from pellucid.store import Store
    with Store.open(sys.argv[1], sys.argv[2]) as store:
        while (job := store.jobs.claim(sys.argv[3])) is not None:
            store.jobs.finish(job.id, sys.argv[3], Scores(values=np.full(20_000, float(job.parameters["i"]))))
            print(job.id, flush=True)
"""


@pytest.mark.slow
def test_a_worker_killed_in_the_middle_of_a_save_leaves_nothing_half_done(place: Place, store: Store) -> None:
    ids = {store.jobs.enqueue("t", "m", {"i": i}).id: float(i) for i in range(60)}
    environment = os.environ | {"PYTHONPATH": str(Path(saving.__file__).parents[2])}
    reported: set[str] = set()
    for attempt in range(3):
        name = f"w{attempt}"
        command = [sys.executable, "-c", textwrap.dedent(WORKER), *map(str, place), name]
        worker = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
        assert worker.stdout is not None
        lines = [worker.stdout.readline() for _ in range(5 + attempt)]
        time.sleep(0.003 * attempt)
        worker.kill()
        lines += worker.stdout.readlines()
        worker.wait()
        worker.stdout.close()
        reported |= {line.strip() for line in lines if line.endswith("\n")}
        time.sleep(0.1)  # a server may still be about to commit what it was sent
        interrupted = store.jobs.interrupt(worker=name)
        assert len(interrupted) <= 1
        for job in interrupted:
            store.jobs.requeue(job)
    done = {job.id: job for job in store.jobs.recent(limit=100) if job.state == "done"}
    assert reported <= set(done)
    assert len(done) <= len(reported) + 3
    for key, job in done.items():
        assert job.result is not None
        opened = store.get(job.result)
        assert isinstance(opened, Scores)
        assert (opened.values == ids[key]).all()
    assert sum(1 for _ in store.find()) == len(done)
