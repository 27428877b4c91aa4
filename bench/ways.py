"""A way of doing a job with a peer, and what it is given to set itself up."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from bench.models import Case, Shape, Sizes

Run = Callable[[Case, int], np.ndarray]
Pair = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Setting:
    """What a peer is given: its own copy of the model, a tokenizer, and the job's sizes."""

    model: Any
    tokenizer: Any
    shape: Shape
    sizes: Sizes
    device: str = "cpu"


@dataclass(frozen=True)
class Way:
    """One way of doing a job.

    `run(case, batch)` does all of it. `part` does some of its repeated units, the whole is `scale` times as much work,
    and `said` says which part. `batches` are those to choose from, by the time that `search` (default: what is timed)
    takes on a prompt of its own. `most_runs` limits the timed runs of a very slow way. Agreement is checked by
    `both(subject, case)`, which gives our answer and theirs in one convention (default: `ours` and `run`), on small
    sizes changed by `check`. `timed_agree` gives the two to compare after a timed run, out of our whole answer and
    theirs; None means they are not comparable.
    """

    name: str
    run: Run
    part: Run | None = None
    scale: float = 1.0
    said: str = ""
    batches: tuple[int, ...] = (0,)
    search: Run | None = None
    most_runs: int = 99
    check: Mapping[str, int] = field(default_factory=dict)
    both: Callable[[Any, Case], Pair] | None = None
    timed_agree: Callable[[np.ndarray, np.ndarray], Pair] | None = None

    def timed(self, case: Case, batch: int) -> np.ndarray:
        """Do what is timed: the part, or all of it."""
        return (self.part or self.run)(case, batch)


def whole(ours: np.ndarray, theirs: np.ndarray) -> Pair:
    """Compare the answers as they are."""
    return ours, theirs
