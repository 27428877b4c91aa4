"""The one place that says with which kernels our side multiplies matrices."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Literal

from pellucid.models.kernels import plain

Kernels = Literal["plain", "fast"]
HAS_FAST = True  # whether the engine ships with kernels of its own; where it has none, "fast" is not run


def kernels(which: Kernels) -> AbstractContextManager[None]:
    """Return a context for "plain" (torch's own products, as peers have them) or "fast" (the engine as it ships)."""
    return plain() if which == "plain" else nullcontext()
