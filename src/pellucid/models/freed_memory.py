"""Keep freed memory in the process while an engine call runs: the next batch asks for it again at once.

On Linux every page that the system hands out anew is first cleared, which costs more than an elementwise operation on
it. By default glibc returns the end of its heap whenever a large tensor is freed there.
"""

from __future__ import annotations

import ctypes
import functools
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # from malloc.h
MOST_FROM_HEAP = 32 << 20  # the largest that glibc allows, and what it comes to by itself once such a block was freed
KEPT, USUAL = 2**31 - 1, 2 * MOST_FROM_HEAP  # free memory at the heap's end; the latter is glibc's own choice
OWN_CHOICE = ("GLIBC_TUNABLES", "MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "LD_PRELOAD")

_lock = threading.Lock()
_calls = 0


@contextmanager
def kept() -> Iterator[None]:
    """Let glibc keep what is freed until the last of these contexts ends; do nothing where there is no glibc.

    Whoever chose how memory is kept, by a variable of the environment, is left with that choice.
    """
    global _calls
    mallopt = _mallopt()
    if mallopt is None:
        yield
        return
    with _lock:
        _calls += 1
        if _calls == 1:
            mallopt(M_MMAP_THRESHOLD, MOST_FROM_HEAP)
            mallopt(M_TRIM_THRESHOLD, KEPT)
    try:
        yield
    finally:
        with _lock:
            _calls -= 1
            if not _calls:
                mallopt(M_TRIM_THRESHOLD, USUAL)  # the next large block that is freed takes the rest along


@functools.cache
def _mallopt() -> Callable[[int, int], int] | None:
    if any(os.environ.get(name) for name in OWN_CHOICE):
        return None
    try:
        library = ctypes.CDLL(None)
        library.gnu_get_libc_version  # noqa: B018  (glibc alone has it, and what these numbers mean is its own)
        return library.mallopt
    except (OSError, TypeError, AttributeError):
        return None
