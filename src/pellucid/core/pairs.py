"""Pairs of runs: a clean prompt, a corrupt one, and which positions belong together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Pair:
    """A clean and a corrupt prompt.

    `alignment` lists (clean position, corrupt position); None means position by position.
    """

    clean: Any
    corrupt: Any
    alignment: tuple[tuple[int, int], ...] | None = None
