"""One job against one peer on one model, in the peer's environment: `python -m bench.pair --job ig --peer captum`.

Our side and the peer's ways run in turns in this process, each time on a new prompt, on our side with a new Subject
whose store is empty. What happens before the clock starts - loading, proofs, choosing batches, warming up - knows only
the sizes of the job and other prompts.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

import pellucid
from bench import floor
from bench.clock import Times, as_record, median_and_range, ratios, wait_for_quiet
from bench.jobs import JOBS, Job, relative
from bench.kernels import HAS_FAST, Kernels, kernels
from bench.machine import machine, versions
from bench.models import EVERY_SHAPE, Shape, Sizes, build, draw, tokenizer
from bench.ways import Setting, Way
from bench.work import Work, counted

TOLERANCE = 1e-4
CHECK, SEARCH, WARM, FIRST = 1, 2, 3, 1000  # seeds
LEAST_RUNS = {"gpt2": 3, "llama": 3}  # the first large call of a process pays for more than itself
LONG_TURN = 60.0  # seconds; a job whose first turn of both sides takes longer is run once


@dataclass(frozen=True)
class Options:
    """How a pair is run: reduced or not, on which device, for how long, and whether it is timed at all."""

    small: bool = False
    device: str = "cpu"
    seconds: float = 45.0
    timed: bool = True
    threads: int = 2


@dataclass(frozen=True)
class Sides:
    """Both sides of one comparison."""

    job: Job
    shape: Shape
    sizes: Sizes
    model: Any
    ways: list[Way]
    options: Options

    def fresh(self) -> Any:
        """Return a new Subject with an empty store, warmed up on another, smaller prompt."""
        subject = pellucid.load(self.model)
        small = replace(self.sizes, **self.job.small)
        self.job.ours(subject, draw(small, self.shape, WARM))
        return subject

    def synchronise(self) -> None:
        """Wait for the accelerator, where there is one."""
        if self.options.device.startswith("cuda"):
            torch.cuda.synchronize()


def sides(job: Job, peer: str, shape: Shape, options: Options) -> Sides:
    """Build both sides on equal weights, each with a model of its own, so that neither's hooks touch the other."""
    sizes = job.sized(options.small)
    attention = "eager" if peer == "transformer-lens" else "sdpa"  # it asks for eager attention itself
    setting = Setting(build(shape, options.device, attention), tokenizer(shape.words), shape, sizes, options.device)
    module = importlib.import_module(f"bench.peers.{peer.replace('-', '_')}")
    ways = getattr(module, job.name.replace("-", "_"))(setting)
    return Sides(job, shape, sizes, build(shape, options.device), ways, options)


def agreement(both: Sides) -> dict[str, float]:
    """Return the relative difference of each way's answer from ours, on a small case, in one convention."""
    found = {}
    for way in both.ways:
        case = draw(replace(both.sizes, **{**both.job.small, **way.check}), both.shape, CHECK)
        if way.both is not None:
            ours, theirs = way.both(pellucid.load(both.model), case)
        else:
            ours, theirs = both.job.ours(pellucid.load(both.model), case), way.run(case, way.batches[0])
        found[way.name] = relative(ours, theirs)
    return found


def count(job: Job, peer: str, shape: Shape, options: Options) -> dict[str, Work]:
    """Count both sides' work at the sizes of the job, on a thin model that does the same rows in little time."""
    thin = sides(job, peer, shape.thin(), options)
    case, found = draw(thin.sizes, thin.shape, FIRST), {}
    subject = thin.fresh()
    with counted(thin.shape) as work, kernels("plain"):
        job.ours(subject, case)
    found["ours"] = work
    for way in thin.ways:
        way.timed(
            draw(replace(thin.sizes, **job.small), thin.shape, WARM), way.batches[0]
        ) if way.part is None else None
        with counted(thin.shape) as work:
            way.timed(case, way.batches[0])
        found[way.name] = work.scaled(way.scale)
    return found


def choose(both: Sides, way: Way) -> int:
    """Return the fastest batch of a way, on a prompt that is not timed."""
    if len(way.batches) == 1:
        return way.batches[0]
    case, seconds = draw(both.sizes, both.shape, SEARCH), {}
    for batch in way.batches:
        start = time.perf_counter()
        (way.search or way.timed)(case, batch)
        both.synchronise()
        seconds[batch] = time.perf_counter() - start
    return min(seconds, key=lambda batch: seconds[batch])


def job_floor(both: Sides) -> floor.Floor:
    """Return the floor of the job, ready to be timed."""
    rows, shape = both.job.rows(both.shape, both.sizes), both.shape
    products = floor.products_of(rows.forward, rows.backward, shape.width, shape.words, shape.kind == "llama")
    return floor.Floor(products, shape.layers, both.options.device)


def take_turns(both: Sides, batches: dict[str, int], limit: floor.Floor) -> dict[str, Any]:
    """Time everything in turns, A B A B, until the seconds are spent; return the runs and what differed.

    Jobs of short turns are run `LEAST_RUNS` times all the same.
    """
    ours: dict[Kernels, Times] = {"plain": Times()} | ({"fast": Times()} if HAS_FAST else {})
    theirs = {way.name: Times() for way in both.ways}
    floors, differences, waited = [], {way.name: [] for way in both.ways}, 0.0
    start, done = time.perf_counter(), 0
    least = 1
    while done < least or (done < 7 and (time.perf_counter() - start) * (done + 1) / done < both.options.seconds):
        case, answer_of_ours = draw(both.sizes, both.shape, FIRST + done), np.zeros(0)
        for which, times in ours.items():
            # Peers are compared with what ships; the other one has a prompt of its own, which no store can know.
            shipped = which == list(ours)[-1]
            if not shipped and done and time.perf_counter() - start > both.options.seconds:
                continue
            own = case if shipped else draw(both.sizes, both.shape, FIRST + 500 + done)
            with kernels(which):
                subject = both.fresh()
                waited += wait_for_quiet()
                answer = _timed(times, partial(both.job.ours, subject, own), both)
            answer_of_ours = answer if shipped else answer_of_ours
            del subject
        for way in both.ways:
            if done >= way.most_runs:
                continue
            waited += wait_for_quiet()
            answer = _timed(theirs[way.name], partial(way.timed, case, batches[way.name]), both)
            if way.timed_agree is not None:
                differences[way.name].append(relative(*way.timed_agree(answer_of_ours, answer)))
        waited += wait_for_quiet()
        floors.append(limit.seconds())
        done += 1
        if done == 1 and time.perf_counter() - start < LONG_TURN:
            least = LEAST_RUNS.get(both.shape.kind, 1)
    return {"ours": ours, "theirs": theirs, "floors": floors, "differences": differences, "waited": waited}


def _timed(times: Times, run: Callable[[], np.ndarray], both: Sides) -> np.ndarray:
    return np.asarray(times.add(run, both.synchronise))


def measure(job: Job, peer: str, shape: Shape, options: Options) -> dict[str, Any]:
    """Return the whole record of one job against one peer on one model."""
    torch.set_num_threads(options.threads)
    work = count(job, peer, shape, options)
    both = sides(job, peer, shape, options)
    agree = agreement(both)  # also warms both sides up: what is done once per process is done here
    fewest = job.rows(shape, both.sizes)
    least = Work(
        fewest.token_layers(shape.kind == "llama"), fewest.token_layers(shape.kind == "llama", back=True),
        logit_rows=fewest.forward["head"], backward_logit_rows=fewest.backward["head"],
    )  # fmt: skip
    record: dict[str, Any] = {
        "job": job.name, "text": job.text, "peer": peer, "model": shape.kind, "small": options.small,
        "sizes": asdict(both.sizes), "when": time.strftime("%Y-%m-%d %H:%M"), "machine": machine(options.device),
        "versions": versions(), "at_most": job.at_most, "floor_bar": job.floor_bar, "fast_kernels": HAS_FAST,
        "work": {name: vars(one) | {"multiply_adds": one.multiply_adds(shape)} for name, one in work.items()},
        "fewest": vars(least) | {"multiply_adds": least.multiply_adds(shape)}, "ways": {},
    }  # fmt: skip
    turns, batches = None, {}
    if options.timed:
        batches = {way.name: choose(both, way) for way in both.ways}
        limit = job_floor(both)
        turns = take_turns(both, batches, limit)
        mine = turns["ours"]
        best = mine.get("fast", mine["plain"])
        record["floor"] = {
            "seconds": turns["floors"], "kernels": limit.described(),
            "ratio": median_and_range([a / b for a, b in zip(best.seconds, turns["floors"], strict=False)]),
        }  # fmt: skip
        record["runs"] = as_record({f"ours, {which}": times for which, times in mine.items()} | turns["theirs"])
        record["waited"] = round(turns["waited"], 1)
    for way in both.ways:
        record["ways"][way.name] = _judged(job, peer, shape, way, work, agree[way.name], turns, batches)
    return record


def _judged(
    job: Job, peer: str, shape: Shape, way: Way, work: dict[str, Work], differs: float, turns: Any, batches: Any
) -> dict[str, Any]:
    """Return one way's line of the table: agreement, and the three ratios where they were measured."""
    mine, theirs = work["ours"].multiply_adds(shape), work[way.name].multiply_adds(shape)
    bar = next((value for key, value in job.bars.items() if key in ("any", peer) or key in way.name), None)
    line: dict[str, Any] = {
        "part": way.said, "scale": way.scale, "agreement": differs, "bar": bar, "counted_bar": job.counted_bar,
        "counted": mine / theirs if job.at_most else theirs / mine,
        "counted_token_layers": work[way.name].token_layers / max(work["ours"].token_layers, 1e-9),
    }  # fmt: skip
    if turns is not None:
        plain, best = turns["ours"]["plain"], turns["ours"].get("fast", turns["ours"]["plain"])
        other = turns["theirs"][way.name]
        sided = (lambda a: ratios(a, other)) if job.at_most else (lambda a: ratios(other, a, way.scale))
        line |= {"same_kernels": sided(plain), "wall": sided(best), "batch": batches[way.name]}
        line["timed_differences"] = turns["differences"][way.name]
    return line


def main(arguments: list[str] | None = None) -> int:
    """Measure one pair and write its record as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--job", choices=list(JOBS), required=True)
    parser.add_argument("--peer", required=True)
    parser.add_argument("--model", choices=EVERY_SHAPE, default="gpt2")
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--width", type=int, default=768)
    parser.add_argument("--small", action="store_true", help="smoke run: small sizes")
    parser.add_argument("--count", action="store_true", help="count and check only, time nothing")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=45.0, help="aim for the runs in turns")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args(arguments)
    warnings.filterwarnings("ignore")
    shape = Shape(given.model, given.layers, given.width)
    options = Options(given.small, given.device, given.seconds, not given.count, given.threads)
    with contextlib.redirect_stdout(sys.stderr):  # peers print
        record = measure(JOBS[given.job], given.peer, shape, options)
    text = json.dumps(record, indent=1)
    if given.out:
        given.out.write_text(text + "\n", encoding="utf-8")
    else:
        print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
