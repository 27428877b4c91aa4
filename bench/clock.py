"""Timing two sides in turns, and what else the machine did meanwhile."""

from __future__ import annotations

import gc
import os
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

QUIET = float(os.environ.get("BENCH_QUIET", "0.15"))  # cores that others may use when a run starts
PATIENCE = float(os.environ.get("BENCH_WAIT", "20"))  # seconds to wait for that, per run


def _busy() -> float:
    """Return the seconds of processor time that everything on the machine has used."""
    stat = Path("/proc/stat")
    if not stat.exists():
        return 0.0
    fields = [int(value) for value in stat.read_text(encoding="ascii").splitlines()[0].split()[1:9]]
    user, nice, system, _, _, irq, soft, steal = fields
    return (user + nice + system + irq + soft + steal) / os.sysconf("SC_CLK_TCK")


def _own() -> float:
    times = os.times()
    return times.user + times.system


class Others:
    """How many cores everything but this process used since the last call of `take`."""

    def __init__(self) -> None:
        """Start watching."""
        self.take()

    def take(self) -> float:
        """Return the cores used by others since the last call, and start again."""
        now = (_busy(), _own(), time.perf_counter())
        before = getattr(self, "_before", now)
        self._before = now
        seconds = now[2] - before[2]
        return 0.0 if seconds <= 0 else max(0.0, (now[0] - before[0] - (now[1] - before[1])) / seconds)


def wait_for_quiet() -> float:
    """Wait until others leave the machine alone, or patience ends; return the seconds waited."""
    start = time.perf_counter()
    while True:
        others = Others()
        time.sleep(0.3)
        if others.take() <= QUIET or time.perf_counter() - start > PATIENCE:
            return time.perf_counter() - start


@dataclass
class Times:
    """The runs of one side: seconds, and the cores that others used during each."""

    seconds: list[float] = field(default_factory=list)
    others: list[float] = field(default_factory=list)

    def add(self, run: Callable[[], object], synchronise: Callable[[], None]) -> object:
        """Time one run and return what it gave."""
        gc.collect()
        synchronise()
        others = Others()
        start = time.perf_counter()
        answer = run()
        synchronise()
        self.seconds.append(time.perf_counter() - start)
        self.others.append(round(others.take(), 2))
        return answer


def median_and_range(ratios: list[float]) -> dict[str, float]:
    """Return the median of the ratios with the lowest and highest.

    The range covers the true median with a probability of 1 - 2^(1 - runs), whatever the distribution.
    """
    return {
        "median": statistics.median(ratios),
        "lowest": min(ratios),
        "highest": max(ratios),
        "runs": len(ratios),
        "coverage": 1 - 2.0 ** (1 - len(ratios)),
    }


def ratios(of: Times, to: Times, scale: float = 1.0) -> dict[str, float]:
    """Return the ratio of two sides, run by run; `scale` is the whole of `of` over the part of it that ran."""
    pairs = zip(of.seconds, to.seconds, strict=False)
    return median_and_range([scale * a / b for a, b in pairs])


def as_record(times: Mapping[str, Times]) -> dict[str, dict[str, list[float]]]:
    """Return all runs for the file of results."""
    return {name: {"seconds": [round(s, 4) for s in one.seconds], "others": one.others} for name, one in times.items()}
