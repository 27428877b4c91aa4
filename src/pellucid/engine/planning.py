"""Batches that fit into memory, progress, cancelling, and an estimate before a long run."""

from __future__ import annotations

import gc
import math
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from pellucid.core.cost import evaluate_cost
from pellucid.core.errors import Cancelled, ResourceError
from pellucid.engine import memory
from pellucid.engine.fit import Fit, fit, known

if TYPE_CHECKING:
    from pellucid.models.subject import Subject

Item = TypeVar("Item")
Answer = TypeVar("Answer")

TOKENS_PER_BATCH = 4096
TOKENS_PER_GRADIENT_BATCH = 2048  # a graph keeps every activation: larger batches were not faster and took more memory
PADDING, FREE_TOKENS = 1.05, 512  # rows of a batch may be padded by this factor, or up to so many tokens in all
FEWEST_TOKENS, MOST_TOKENS = 512, 1 << 16
WORTH_MEASURING = 1 << 14
SHARE = 0.5


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
    fits: Callable[[int, int], bool] | None = None,
) -> list[Answer]:
    """Run items in batches of similar length and return the answers in the given order.

    A batch is run at once where its padded size stays under `tokens_per_batch` and `fits(rows, tokens)`, from
    `room_for`, agrees; when memory runs out all the same, also where the system refuses an allocation, it is halved
    and retried, down to one item.

    Raises:
        ResourceError: a single item does not fit.
        Cancelled: the user stopped the run; no partial answer is returned.
    """
    order = sorted(range(len(items)), key=lambda i: lengths[i])
    answers: dict[int, Answer] = {}
    limit = tokens_per_batch if fits is None else MOST_TOKENS
    while len(answers) < len(order):
        check_cancelled()
        batch = _next(order[len(answers) :], lengths, limit, fits)
        results = _tried(run, [items[i] for i in batch], max(lengths[i] for i in batch))
        if results is None:
            gc.collect()  # what the failed batch held may be part of cycles
            limit = max(1, sum(lengths[i] for i in batch) // 2)
            continue
        answers.update(zip(batch, results, strict=True))
        report(len(answers), len(order))
    return [answers[i] for i in range(len(items))]


def _tried(run: Callable[[list[Item]], Sequence[Answer]], batch: list[Item], tokens: int) -> Sequence[Answer] | None:
    """Return the answers of a batch, or None where memory ran out; raise `ResourceError` where it is a single item."""
    try:
        return run(batch)
    except Exception as error:
        if not memory.ran_out(error):
            raise
        if len(batch) == 1:
            if isinstance(error, ResourceError):
                raise
            raise ResourceError(
                f"Memory ran out on a single row of {tokens} tokens ({memory.available() / 1e9:.2g} GB are left); "
                "shorten the prompt, take a smaller model or dtype, or free memory."
            ) from error
    return None  # outside of the handler, so that the error no longer holds the tensors of its frames


def _next(waiting: list[int], lengths: Sequence[int], limit: int, fits: Callable[[int, int], bool] | None) -> list[int]:
    batch: list[int] = []
    real = 0
    for i in waiting:
        padded, real = (len(batch) + 1) * lengths[i], real + lengths[i]
        if batch and (
            padded > limit
            or padded > max(FREE_TOKENS, PADDING * real)
            or (fits is not None and not fits(len(batch) + 1, lengths[i]))
        ):
            break
        batch.append(i)
    return batch


def room_for(
    subject: Subject, lengths: Sequence[int], targets: int = 1, gradients: int = 0
) -> Callable[[int, int], bool] | None:
    """Return whether so many rows of so many tokens should be one batch: they fit, and more would not be faster.

    Args:
        subject: the model.
        lengths: tokens of all rows that are to be run.
        targets: targets read in each row.
        gradients: scores of each row that are differentiated.

    Returns:
        A function of (rows, tokens) for `in_batches`; None, which means `TOKENS_PER_BATCH`, where so little is to be
        run that measuring the model would take longer.
    """
    graph, total = gradients > 0, sum(lengths) * (1 + gradients)
    if subject.kind == "black-box" or (total < WORTH_MEASURING and not known(subject, graph, total)):
        return None
    found = fit(subject, graph, total)
    limit = SHARE * memory.available(subject.input_device)

    def agreed(rows: int, tokens: int) -> bool:
        return rows * tokens <= best_tokens(found, tokens) and found.bytes(rows, tokens, targets, gradients) <= limit

    return agreed


def best_tokens(found: Fit, tokens: int) -> int:
    """Return the padded tokens of the best batch of rows of a length, as a power of two that noise changes rarely."""
    wanted = found.tokens_at_full_speed(max(tokens, 1))
    return min(MOST_TOKENS, max(FEWEST_TOKENS, 1 << round(math.log2(wanted))))


@dataclass(frozen=True)
class Estimate:
    """What a run will take: seconds, bytes of memory beyond the model, and rows forward and backward."""

    seconds: float
    bytes: float
    forwards: float
    backwards: float

    def __str__(self) -> str:
        """Return the estimate in words."""
        passes = f"{self.forwards:.0f} forwards" + (f" and {self.backwards:.0f} backwards" if self.backwards else "")
        return f"{self.seconds:.2g} s, {self.bytes / 1e9:.2g} GB and {passes}"


def estimate(
    subject: Subject, cost: str, counts: Mapping[str, float], tokens: int, *, targets: int = 1, gradients: int = 1,
    share: float = 1.0, tokens_per_batch: int | None = None,
) -> Estimate:  # fmt: skip
    """Estimate a run from its cost expression, before it starts.

    Args:
        subject: the model.
        cost: for example "steps*(F+B)".
        counts: the value of every name in the expression.
        tokens: length of one row, its continuation included.
        targets: targets read in each row.
        gradients: scores of each row that are differentiated, where the cost has backwards.
        share: the part of the forward work that is left where rows share it.
        tokens_per_batch: padded tokens of a batch; None for what the engine takes: with gradients a constant, else what
            `room_for` allows.

    Returns:
        Seconds, from a fit to this model on this machine, and the most bytes held at once, for one batch of the size
        that would be run and, with gradients, for all points and gradients. An approximation: within a factor of 1.5
        in time and 0.7 to 1.2 in memory on tested models, on a machine that does nothing else.
    """
    passes = evaluate_cost(cost, counts)
    forwards, backwards = float(passes[0]), float(passes[1])
    if subject.kind == "black-box" or not forwards + backwards:
        return Estimate(0.0, 0.0, forwards, backwards)
    gradients = gradients if backwards else 0
    found = fit(subject, backwards > 0, int((forwards + backwards) * tokens))
    together = min(forwards, backwards / gradients) if gradients else forwards
    most = found.rows(SHARE * memory.available(subject.input_device), tokens, targets, gradients)
    if tokens_per_batch is None:
        tokens_per_batch = TOKENS_PER_GRADIENT_BATCH if gradients else best_tokens(found, tokens)
    rows = int(max(1, min(together, most, tokens_per_batch // max(tokens, 1))))
    once = found.seconds(rows, tokens, targets)
    seconds = share * forwards / rows * once + found.setup.seconds
    if gradients:
        seconds += together / rows * (found.seconds(rows, tokens, targets, gradients) - once)
    held = found.bytes(rows, tokens, targets, gradients) + 2 * found.gradient * tokens * (together + backwards)
    if forwards * targets < found.setup.late_rows:
        held -= found.setup.late
    if gradients == 1:
        # While weights are packed for the first way back, the graph is let go; the next batch meets them packed.
        next_rows = min(rows, math.ceil(together) - rows)
        more = found.bytes(rows, tokens, targets) - found.bytes(next_rows, tokens, targets) if next_rows > 0 else held
        held -= min(found.setup.back, more)
    return Estimate(seconds, held, forwards, backwards)
