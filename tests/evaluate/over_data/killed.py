"""Kill a run over a data set again and again: `python -m tests.evaluate.over_data.killed KILLS FOLDER EXAMPLES`.

The model is loaded once; every attempt is a fork of this process that is killed by SIGKILL at a random moment. Between
attempts the whole lines of the record are read as plainly as possible, and compared with those that were there before.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch

import pellucid
from pellucid.evaluate.over_data import evaluate_dataset
from tests.evaluate.over_data.cases import ASKED, METHODS, METRICS, reviews

LONGEST_LIFE = 0.12


def lines(path: Path) -> list[dict[str, Any]]:
    """Return the whole lines of a record, read without the code under test."""
    found = []
    for line in path.read_bytes().split(b"\n")[1:-1] if path.exists() else []:
        checksum, _, content = line.partition(b" ")
        if checksum == b"%08x" % zlib.crc32(content):
            found.append(json.loads(content))
    return found


def same(one: Any, other: Any) -> bool:
    """Return whether two lines' values are equal to rounding: batches differ in a run that goes on half-way."""
    if not isinstance(one, dict) or not isinstance(other, dict):
        return bool(one == other)
    return one.keys() == other.keys() and all(
        one[name] == other[name] or np.allclose(one[name], other[name], rtol=1e-4, atol=1e-6) for name in one
    )


def attempt(subject: Any, rows: list[dict[str, Any]], path: Path, seconds: float | None) -> bool:
    """Run in a fork and kill it after `seconds`; return whether it came to its end."""
    child = os.fork()
    if child == 0:
        try:
            evaluate_dataset(subject, rows, methods=METHODS, metrics=METRICS, record=path, **ASKED)
            os._exit(0)
        finally:
            os._exit(1)
    if seconds is not None:
        time.sleep(seconds)
        os.kill(child, signal.SIGKILL)
    status = os.waitpid(child, 0)[1]
    if os.WIFEXITED(status) and os.WEXITSTATUS(status):
        raise RuntimeError("an attempt ended with an error")
    return os.WIFEXITED(status)


def main(kills: int, folder: Path, examples: int = 30) -> dict[str, int]:
    """Kill runs until `kills` of them died half-way, let each finish, and count what was lost, doubled or changed."""
    torch.set_num_threads(1)
    subject, rng = pellucid.load("zoo:tiny-classifier"), random.Random(kills)
    counts = {"kills": 0, "runs": 0, "lost": 0, "doubled": 0, "changed": 0, "torn": 0, "pieces": 0}
    rows = reviews(examples)
    whole = folder / "whole"
    attempt(subject, rows, whole, None)
    expected = {line["key"]: line.get("values") for line in lines(whole)}
    while counts["kills"] < kills:
        path, before = folder / f"run-{counts['runs']}", dict[str, Any]()
        while counts["kills"] < kills:
            done = attempt(subject, rows, path, rng.uniform(0.0, LONGEST_LIFE))
            found = lines(path)
            after = {line["key"]: line for line in found}
            counts["lost"] += sum(after.get(key) != line for key, line in before.items())
            before = after
            if done:
                break
            counts["kills"] += 1
            counts["torn"] += int(path.exists() and not path.read_bytes().endswith(b"\n"))
        attempt(subject, rows, path, None)
        found = lines(path)
        final = {line["key"]: line.get("values") for line in found}
        counts["lost"] += len(expected.keys() - final.keys())
        counts["doubled"] += len(found) - len(final)
        counts["changed"] += sum(not same(final.get(key), values) for key, values in expected.items())
        counts["pieces"] += len(final)
        counts["runs"] += 1
    return counts


if __name__ == "__main__":
    print(json.dumps(main(int(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))))
