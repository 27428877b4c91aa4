"""A run that is killed again and again ends with what an undisturbed run has, and computes almost nothing twice."""

from __future__ import annotations

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

from pellucid.core import saving
from pellucid.core.encoding import as_json
from pellucid.core.results import Scores

pytest.importorskip("sqlalchemy")
from pellucid.store import Store, map_dataset

ITEMS, KILLS = 40, 4

WORKER = """
    import os, sys, time
    import numpy as np
    from pellucid.core.results import Scores
    from pellucid.store import Store, map_dataset

    log = os.open(sys.argv[2], os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def explain(item):
        os.write(log, f"{item}\\n".encode())
        time.sleep(0.004)
        return Scores(values=np.random.default_rng(item).normal(size=2000), title=f"item {item}")

    with Store.open(sys.argv[1]) as store:
        map_dataset(store, "killed", {"seed": 0}, list(range(int(sys.argv[3]))), explain)
"""


def explain(item: int) -> Scores:
    return Scores(values=np.random.default_rng(item).normal(size=2000), title=f"item {item}")


def lines(log: Path) -> list[int]:
    return [int(line) for line in log.read_text().split()] if log.exists() else []


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow), pytest.param(2, marks=pytest.mark.slow)])
def test_a_run_killed_at_random_moments_resumes_with_nothing_lost_or_recomputed(seed: int, tmp_path: Path) -> None:
    draw = random.Random(seed)
    path, log = tmp_path / "store.db", tmp_path / "computed"
    environment = os.environ | {"PYTHONPATH": str(Path(saving.__file__).parents[2])}
    command = [sys.executable, "-c", textwrap.dedent(WORKER), str(path), str(log), str(ITEMS)]
    kills = 0
    while kills < KILLS:
        before = len(lines(log))
        worker = subprocess.Popen(command, env=environment)
        while len(lines(log)) < before + draw.randint(1, ITEMS // KILLS - 2) and worker.poll() is None:
            time.sleep(0.001)
        time.sleep(draw.random() * 0.02)
        worker.kill()
        if worker.wait() == 0:
            break
        kills += 1
    subprocess.run(command, env=environment, check=True)

    computed = Counter(lines(log))
    assert kills >= KILLS - 1
    assert set(computed) == set(range(ITEMS))
    assert computed.total() <= ITEMS + kills
    with Store.open(path) as store, Store.open(tmp_path / "other.db") as other:
        (run,) = store.runs()
        undisturbed = map_dataset(other, "killed", {"seed": 0}, list(range(ITEMS)), explain)
        assert run.finished
        assert [(k, as_json(r)) for k, r in run.results()] == [(k, as_json(r)) for k, r in undisturbed.results()]
        named = sum(1 for _ in store.folder.glob("*/*.safetensors"))
        assert named == ITEMS
