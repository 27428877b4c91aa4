"""Worker processes as the server sees them: started, asked, heard, and started again when they end."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import sys
from collections.abc import Callable, Mapping
from typing import Any

from pellucid.core import errors
from pellucid.core.errors import PellucidError, ResourceError

LONGEST_LINE = 1 << 28
FAREWELL = 5.0
PAUSE = 1.0


class WorkerError(PellucidError):
    """A worker answered with an error that is not the user's: it ended, or met something unforeseen."""


class Process:
    """A worker process that is kept alive: it is started again when it ends by itself."""

    def __init__(
        self,
        config: Mapping[str, Any],
        heard: Callable[[dict[str, Any]], None],
        ended: Callable[[], None] = lambda: None,
    ) -> None:
        self.config, self.heard, self.ended = config, heard, ended
        self.closing = False
        self._process: asyncio.subprocess.Process | None = None
        self._asked: dict[int, asyncio.Future[Any]] = {}
        self._numbers = itertools.count()
        self._keeper: asyncio.Task[None] | None = None
        self._up = asyncio.Event()

    def start(self) -> None:
        """Start the process and keep it alive."""
        if self._keeper is None:
            self._keeper = asyncio.create_task(self._keep())

    async def close(self) -> None:
        """End the process: by ending its input, or after a while by force."""
        self.closing = True
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()
            try:
                await asyncio.wait_for(self._process.wait(), FAREWELL)
            except TimeoutError:
                self.kill()
        if self._keeper is not None:
            self._keeper.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._keeper

    def kill(self) -> None:
        """End the process at once; what it works on is done again or marked."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()

    def tell(self, **message: Any) -> None:
        """Send a message that has no answer; a process that is just being started hears it when it asks the store."""
        if self._up.is_set() and self._process is not None and self._process.stdin is not None:
            with contextlib.suppress(OSError, RuntimeError):
                self._process.stdin.write(json.dumps(message).encode() + b"\n")

    async def ask(self, **message: Any) -> Any:
        """Send a question and return its answer.

        Raises:
            PellucidError: what the worker answered with.
            ResourceError: the worker ended before it answered.
        """
        self.start()
        await self._up.wait()
        number = next(self._numbers)
        future = self._asked[number] = asyncio.get_running_loop().create_future()
        self.tell(ask=number, **message)
        try:
            return await future
        finally:
            self._asked.pop(number, None)

    async def _keep(self) -> None:
        while not self.closing:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "pellucid.web.worker",
                stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, limit=LONGEST_LINE,
                start_new_session=True,
            )  # fmt: skip
            assert self._process.stdin is not None
            self._process.stdin.write(json.dumps(dict(self.config)).encode() + b"\n")
            self._up.set()
            await self._hear()
            self._up.clear()
            await self._process.wait()
            for future in self._asked.values():
                if not future.done():
                    future.set_exception(ResourceError("The worker process ended unexpectedly; ask again."))
            self.ended()
            if not self.closing:
                await asyncio.sleep(PAUSE)

    async def _hear(self) -> None:
        assert self._process is not None
        assert self._process.stdout is not None
        while text := await self._process.stdout.readline():
            message: dict[str, Any] = json.loads(text)
            if "answer" not in message:
                self.heard(message)
                continue
            future = self._asked.get(message["answer"])
            if future is None or future.done():
                continue
            if "error" in message:
                future.set_exception(rebuilt(message["kind"], message["error"]))
            else:
                future.set_result(message["value"])


def rebuilt(kind: str, sentence: str) -> PellucidError:
    """Return the error that a worker told of."""
    found = getattr(errors, kind, None)
    if isinstance(found, type) and issubclass(found, PellucidError):
        return found(sentence)
    return WorkerError(sentence)
