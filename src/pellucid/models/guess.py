"""Guess the layout of an unknown architecture; the proofs decide whether the guess stands."""

from __future__ import annotations

from typing import Any

from pellucid.models.layout import Layout


def guess_layout(model: Any) -> Layout | None:
    """Return a guessed layout, or None where nothing like a stack of blocks is found."""
    return None
