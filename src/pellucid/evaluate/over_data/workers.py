"""Examples of a run shared out over processes forked from this one, which alone writes the record."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection, wait
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from pellucid.core import errors
from pellucid.core.errors import CapabilityError, PellucidError, ResourceError

if TYPE_CHECKING:
    from pellucid.models.subject import Subject


class Piece(NamedTuple):
    """A finished piece of work: its key in the record, its method or metric, what it found and how long it took."""

    key: str
    name: str
    entry: dict[str, Any]
    seconds: float


Compute = Callable[[int, Callable[[Piece], None]], None]


def check_workers(subject: Subject, workers: int) -> None:
    """Raise `CapabilityError` where a model cannot be shared with forked processes."""
    if workers > 1 and (sys.platform != "linux" or subject.device not in ("cpu", "none")):
        raise CapabilityError(
            f"{workers} workers were asked for, but processes that share a model are forked, which needs Linux and a "
            f"model on the CPU, and {subject.name} is on {subject.device!r} under {sys.platform}; use workers=1."
        )


def shared_out(examples: Sequence[int], workers: int, compute: Compute) -> Iterator[Piece | None]:
    """Yield what workers finish as they finish it, and None whenever one of them is done with an example.

    `compute` is called in a worker with an example and what it hands pieces to. Products of a worker take its share of
    this process's threads. A worker that ends takes nothing with it but the example it was at; all are ended when the
    caller stops listening.

    Raises:
        PellucidError: what a worker raised.
        ResourceError: a worker was killed, as happens where memory runs out.
    """
    waiting, context = list(reversed(examples)), multiprocessing.get_context("fork")
    threads = max(1, torch.get_num_threads() // workers)
    lines: dict[Connection, Any] = {}
    try:
        for _ in range(min(workers, len(waiting))):
            ours, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(theirs, compute, threads, [*lines, ours]), daemon=True)
            process.start()
            theirs.close()
            lines[ours] = process
            ours.send(waiting.pop())
        while lines:
            for line in wait(list(lines)):
                assert isinstance(line, Connection)
                yield from _heard(line, lines, waiting)
    finally:
        for line, process in lines.items():
            process.kill()
            process.join()
            line.close()


def _heard(line: Connection, lines: dict[Connection, Any], waiting: list[int]) -> Iterator[Piece | None]:
    """Take one message of a worker, and give it its next example where it is done with one."""
    try:
        message = line.recv()
    except (EOFError, ConnectionError):
        raise ResourceError(
            "A worker of the evaluation was killed, as happens where memory runs out; run the same again with fewer "
            "workers, it goes on from the record."
        ) from None
    if isinstance(message, Piece):
        yield message
    elif message is None:
        yield None
        if waiting:
            line.send(waiting.pop())
        else:
            line.send(None)
            lines.pop(line).join()
            line.close()
    else:
        kind, words = message
        raise getattr(errors, kind)(words)


def _serve(line: Connection, compute: Compute, threads: int, others: Sequence[Connection]) -> None:
    """Compute examples until there are no more; ends by itself where the parent is gone."""
    for other in others:
        other.close()
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    torch.set_num_threads(threads)
    with contextlib.suppress(EOFError, ConnectionError, KeyboardInterrupt):
        while (example := line.recv()) is not None:
            try:
                compute(example, line.send)
            except PellucidError as error:
                line.send((type(error).__name__, str(error)))
                return
            line.send(None)
