"""Run the benchmark: `python bench/run.py`, or one pair: `python bench/run.py --job ig --peer captum --model llama`.

Every pair runs in its peer's environment (made when it is missing), one after the other. Records are merged into
bench/results.json after every pair, and bench/RESULTS.md is written from it. What was never measured comes first, then
what was measured longest ago, so that a run that its minutes end is taken up by the next.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[0] = str(ROOT)  # run as a file, Python puts this folder there, whose names are no packages of their own

from bench import environments, report  # noqa: E402
from bench.jobs import JOBS  # noqa: E402
from bench.models import EVERY_SHAPE  # noqa: E402

RESULTS = ROOT / "bench" / "results.json"
MINUTES = 28.0
SECONDS = {
    "gpt2": 30.0,
    "llama": 10.0,
    "bert": 10.0,
}  # spent on the runs in turns, but for the fewest runs that are always made


Pair = tuple[str, str, str]


def pairs(job: str | None, peer: str | None, model: str | None) -> list[Pair]:
    """Return (job, peer, model) of what is to run: first everything on GPT-2, then on Llama, then on BERT."""
    return [
        (one.name, other, shape)
        for shape in EVERY_SHAPE
        for one in JOBS.values()
        if shape in one.models
        for other in one.peers
        if job in (None, one.name) and peer in (None, other) and model in (None, shape)
    ]


def oldest_first(todo: list[Pair], records: list[dict[str, Any]]) -> list[Pair]:
    """Return pairs in the order of when each was measured at full size, those that never were before all others."""
    when = {
        (one["job"], one["peer"], one["model"]): one["when"]
        for one in records if "failed" not in one and not one.get("small", False)
    }  # fmt: skip
    return sorted(todo, key=lambda pair: when.get(pair, ""))


def run(pair: Pair, options: list[str], seconds: float) -> dict[str, Any]:
    """Run one pair in its environment and return its record, or what went wrong."""
    job, peer, model = pair
    python = environments.python_of(peer)
    usual = {name: value for name, value in os.environ.items() if name not in ("OMP_NUM_THREADS", "PYTHONPATH")}
    quiet = {"HF_HUB_OFFLINE": "1", "TQDM_DISABLE": "1", "TOKENIZERS_PARALLELISM": "false", "WANDB_MODE": "disabled"}
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "record.json"
        command = [str(python), "-m", "bench.pair", "--job", job, "--peer", peer, "--model", model, "--out", str(out)]
        command += ["--seconds", str(seconds), *options]
        start = time.perf_counter()
        done = subprocess.run(command, cwd=ROOT, env=usual | quiet, capture_output=True, text=True, check=False)
        if done.returncode == 0:
            return json.loads(out.read_text(encoding="utf-8")) | {"took": round(time.perf_counter() - start, 1)}
    said = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
    return {"job": job, "peer": peer, "model": model, "failed": said.replace(str(ROOT), ".")}


def read(file: Path) -> list[dict[str, Any]]:
    """Return the records of a file of results; none where there is no file yet."""
    return json.loads(file.read_text(encoding="utf-8")) if file.exists() else []


def merge(records: list[dict[str, Any]], file: Path) -> None:
    """Put records into the file of results, each in place of the older one of its job, peer, model and size."""
    kept = read(file)
    key = lambda one: (one["job"], one["peer"], one["model"], one.get("small", False))  # noqa: E731
    table = {key(one): one for one in kept} | {key(one): one for one in records}
    file.write_text(json.dumps(list(table.values()), indent=1) + "\n", encoding="utf-8")


def main(arguments: list[str] | None = None) -> int:
    """Run what is asked for, and return the number of pairs that failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--job", choices=list(JOBS))
    parser.add_argument("--peer")
    parser.add_argument("--model", choices=EVERY_SHAPE)
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--small", action="store_true", help="smoke run: small sizes; not written to the results")
    parser.add_argument("--count", action="store_true", help="count and check only, time nothing; not written either")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--gpu", action="store_true", help="on the first accelerator")
    parser.add_argument("--minutes", type=float, default=MINUTES, help="start no pair after so many minutes")
    given = parser.parse_args(arguments)
    if given.gpu and not _has_gpu():
        print("No CUDA device is found; run it without GPU=1, or on a machine that has one.", file=sys.stderr)
        return 1
    options = ["--layers", str(given.layers), "--threads", str(given.threads), *(["--small"] if given.small else [])]
    options += (["--count"] if given.count else []) + (["--device", "cuda"] if given.gpu else [])
    todo = pairs(given.job, given.peer, given.model)
    if not todo:
        print(f"No job {given.job} has a peer {given.peer}; see bench/jobs.py.", file=sys.stderr)
        return 1
    for name in dict.fromkeys(peer for _, peer, _ in todo):
        problem = environments.make(name)
        if problem:
            print(f"bench/.envs/{name} could not be made ({problem}); its pairs will fail.", file=sys.stderr)
    scratch = given.small or given.count or given.layers != 12 or given.threads != 2
    file = Path(tempfile.gettempdir()) / "pellucid-bench.json" if scratch else RESULTS
    file = file.with_name("results-gpu.json") if given.gpu and not scratch else file
    failed = _run_all(oldest_first(todo, read(file)), options, given.minutes, file)
    if not scratch:
        report.write(file, file.with_suffix(".md").with_name(file.stem.upper() + ".md"), pairs(None, None, None))
    return failed


def _run_all(todo: list[Pair], options: list[str], minutes: float, file: Path) -> int:
    """Run pairs until the minutes are over, keep each record, and return how many pairs failed."""
    start, failed = time.perf_counter(), 0
    for done, pair in enumerate(todo):
        if time.perf_counter() - start > 60 * minutes:
            print(f"{minutes:g} minutes are over; {len(todo) - done} pairs are left and come first in the next run.")
            break
        record = run(pair, options, SECONDS[pair[2]])
        failed += "failed" in record
        merge([record], file)
        print(report.line(record), flush=True)
    return failed


def _has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()


if __name__ == "__main__":
    sys.exit(main())
