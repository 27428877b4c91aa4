"""Batches, their memory, progress, cancelling, and an estimate before a long run."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from pellucid.core.cost import evaluate_cost
from pellucid.core.errors import Cancelled, ResourceError
from pellucid.models.forward import forward
from pellucid.models.proofs import probe

if TYPE_CHECKING:
    from pellucid.models.subject import Subject

Item = TypeVar("Item")
Answer = TypeVar("Answer")

TOKENS_PER_BATCH = 4096


@dataclass
class Control:
    """Who watches a run: `progress(done, total)` after every batch, and an event that stops it between batches."""

    progress: Callable[[int, int], None] | None = None
    cancel: threading.Event | None = None


_control: ContextVar[Control | None] = ContextVar("pellucid_control", default=None)


@contextmanager
def controlled(
    progress: Callable[[int, int], None] | None = None, cancel: threading.Event | None = None
) -> Iterator[None]:
    """Report progress of, and allow cancelling, every engine call made in this context."""
    token = _control.set(Control(progress, cancel))
    try:
        yield
    finally:
        _control.reset(token)


def check_cancelled() -> None:
    """Raise `Cancelled` if the user asked to stop."""
    control = _control.get()
    if control is not None and control.cancel is not None and control.cancel.is_set():
        raise Cancelled("The run was cancelled between two batches; nothing was changed.")


def report(done: int, total: int) -> None:
    """Tell whoever watches how far the run is."""
    control = _control.get()
    if control is not None and control.progress is not None:
        control.progress(done, total)


def in_batches(
    items: Sequence[Item],
    lengths: Sequence[int],
    run: Callable[[list[Item]], Sequence[Answer]],
    tokens_per_batch: int = TOKENS_PER_BATCH,
) -> list[Answer]:
    """Run items in batches of similar length and return the answers in the given order.

    A batch whose padded size stays under `tokens_per_batch` is run at once; when memory runs out it is halved and
    retried, down to one item.

    Raises:
        ResourceError: a single item does not fit.
        Cancelled: the user stopped the run; no partial answer is returned.
    """
    order = sorted(range(len(items)), key=lambda i: lengths[i])
    answers: dict[int, Answer] = {}
    limit = tokens_per_batch
    while len(answers) < len(order):
        check_cancelled()
        batch = _next(order[len(answers) :], lengths, limit)
        try:
            results = run([items[i] for i in batch])
        except ResourceError:
            if len(batch) == 1:
                raise
            limit = max(1, sum(lengths[i] for i in batch) // 2)
            continue
        answers.update(zip(batch, results, strict=True))
        report(len(answers), len(order))
    return [answers[i] for i in range(len(items))]


def _next(waiting: list[int], lengths: Sequence[int], limit: int) -> list[int]:
    batch: list[int] = []
    for i in waiting:
        if batch and (len(batch) + 1) * lengths[i] > limit:
            break
        batch.append(i)
    return batch


@dataclass(frozen=True)
class Estimate:
    """What a run will take: seconds, bytes of memory beyond the model, and rows forward and backward."""

    seconds: float
    bytes: float
    forwards: float
    backwards: float


def estimate(subject: Subject, cost: str, counts: Mapping[str, float], tokens: int) -> Estimate:
    """Estimate a run from its cost expression, before it starts.

    Args:
        subject: the model.
        cost: for example "steps*(F+B)".
        counts: the value of every name in the expression.
        tokens: length of one row.

    Returns:
        Seconds (measured forwards of this length; a backward counts as two forwards) and memory (an upper model:
        kept activations of one batch). An approximation; within a factor of about two on tested models.
    """
    passes = evaluate_cost(cost, counts)
    forwards, backwards = float(passes[0]), float(passes[1])
    if subject.kind == "black-box":
        return Estimate(0.0, 0.0, forwards, backwards)
    per_row = _seconds_per_row(subject, tokens)
    width = int(getattr(subject.model.config, "hidden_size", 0) or getattr(subject.model.config, "d_model", 768))
    rows = max(1, min(forwards, TOKENS_PER_BATCH // max(tokens, 1)))
    kept = (20 * subject.layers * width + 2 * subject.vocabulary) if backwards else (8 * width + 2 * subject.vocabulary)
    return Estimate((forwards + 2 * backwards) * per_row, 4.0 * rows * tokens * kept, forwards, backwards)


def _seconds_per_row(subject: Subject, tokens: int) -> float:
    bucket = 1 << max(0, tokens - 1).bit_length()
    key = ("seconds", bucket)
    if key not in subject.state.cache:
        length = min(bucket, subject.max_length or bucket)
        rows = [probe(subject, length), probe(subject, length)]
        measured: list[float] = []
        with subject.uncounted():
            forward(subject, rows)
            while len(measured) < 3 and sum(measured) < 0.5:  # the shortest of three, because other work only adds
                start = time.perf_counter()
                forward(subject, rows)
                measured.append(time.perf_counter() - start)
        subject.state.cache[key] = min(measured) / len(rows)
    return float(subject.state.cache[key])
