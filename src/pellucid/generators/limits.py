"""How hard a server may be pressed, and what it may cost."""

from __future__ import annotations

import email.utils
import random
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from pellucid.core.errors import InputError, ResourceError
from pellucid.generators.interface import Request


@dataclass(frozen=True)
class Limits:
    """Bounds on the use of a server.

    `concurrency` requests are under way at once, at most `requests_per_minute` begin in a minute (evenly spaced). Each
    attempt may take `timeout` seconds and is repeated up to `retries` times after 429, 408, 409, 5xx, timeouts and
    dropped connections; the waits double from about half a second, at random, and follow the server's Retry-After up to
    `longest_wait` seconds. `price` is (per prompt token, per completion token) in any currency. With `cost_limit` no
    request is sent whose worst case could exceed it: the prompt's UTF-8 bytes plus 32 tokens per message, and all of
    `max_tokens`. An attempt without an answer that the server may have charged for counts in full.
    """

    concurrency: int = 8
    requests_per_minute: float | None = None
    timeout: float = 120.0
    retries: int = 6
    longest_wait: float = 120.0
    price: tuple[float, float] | None = None
    cost_limit: float | None = None

    def __post_init__(self) -> None:
        """Check the values."""
        if self.concurrency < 1 or self.retries < 0 or self.timeout <= 0 or self.longest_wait <= 0:
            raise InputError(
                "Limits need concurrency >= 1, retries >= 0, timeout > 0 and longest_wait > 0, but are "
                f"{self.concurrency}, {self.retries}, {self.timeout} and {self.longest_wait}."
            )
        if self.requests_per_minute is not None and self.requests_per_minute <= 0:
            raise InputError(f"requests_per_minute must be above 0, but is {self.requests_per_minute}.")
        if self.cost_limit is not None and self.price is None:
            raise InputError("A cost_limit needs the price, which is missing; give price=(per prompt, per completion).")


class Pacer:
    """Let callers of several threads begin one after the other, at most so many per minute."""

    def __init__(self, per_minute: float | None) -> None:
        """Start with a free slot."""
        self._gap = 60.0 / per_minute if per_minute else 0.0
        self._next = 0.0
        self._lock = threading.Lock()

    def wait(self, sleep: Callable[[float], object]) -> None:
        """Take the next slot and sleep until it comes."""
        if not self._gap:
            return
        with self._lock:
            now = time.monotonic()
            slot = max(now, self._next)
            self._next = slot + self._gap
        if slot > now:
            sleep(slot - now)


class Budget:
    """Money: reserved before an attempt, settled after it, never above the limit."""

    def __init__(self, limits: Limits) -> None:
        """Start with nothing spent."""
        self.price, self.limit = limits.price or (0.0, 0.0), limits.cost_limit
        self.spent = 0.0
        self._reserved = 0.0
        self._changed = threading.Condition()

    def cost(self, prompt_tokens: int, completion_tokens: int) -> float:
        """Return the price of so many tokens."""
        return prompt_tokens * self.price[0] + completion_tokens * self.price[1]

    def worst(self, request: Request, max_tokens: int, n: int) -> float:
        """Return the most that an attempt can cost; a token stands for at least one byte of the prompt."""
        sizes = [len(text.encode("utf-8", "surrogatepass")) + 32 for m in request.messages for text in [m["content"]]]
        return self.cost(sum(sizes), max_tokens * n)

    def reserve(self, amount: float) -> None:
        """Set money aside, waiting for attempts under way whose real price may leave enough.

        Raises:
            ResourceError: If the limit could be exceeded.
        """
        with self._changed:
            if self.limit is not None:
                while self._reserved > 0 and self.spent + self._reserved + amount > self.limit:
                    self._changed.wait()
                if self.spent + amount > self.limit:
                    raise ResourceError(
                        f"The next request could cost {amount:.6g}, but {self.spent:.6g} of the cost limit of "
                        f"{self.limit:.6g} is spent; raise cost_limit or lower max_tokens, the answers so far are kept."
                    )
            self._reserved += amount

    def settle(self, reserved: float, real: float) -> None:
        """Replace a reservation by the real price."""
        with self._changed:
            self._reserved = max(self._reserved - reserved, 0.0)
            # Sums of floats leave crumbs; a crumb must not look like an attempt under way.
            if self._reserved < 1e-12 * max(reserved, 1e-300):
                self._reserved = 0.0
            self.spent += real
            self._changed.notify_all()


def backoff(attempt: int, longest: float) -> float:
    """Return the seconds to wait after failure number `attempt` (from 0): random, below a bound that doubles."""
    bound = min(0.5 * 2.0**attempt, longest)
    return bound * (0.5 + 0.5 * random.random())


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Return the seconds that a server asks to wait, given as a number or as a date, or None."""
    given = headers.get("retry-after")
    if given is None:
        return None
    try:
        return max(float(given), 0.0)
    except ValueError:
        moment = email.utils.parsedate_tz(given)
        return None if moment is None else max(email.utils.mktime_tz(moment) - time.time(), 0.0)
