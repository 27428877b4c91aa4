"""Tiny random models of every supported architecture: `TINY[name]()` builds one in evaluation mode, always the same."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

from tests.state import model_state
from tests.tiny_decoders import TINY_DECODERS

__all__ = ["TINY", "model_state"]


def _others(module: str, name: str) -> dict[str, Callable[[], Any]]:
    try:
        found: dict[str, Callable[[], Any]] = getattr(importlib.import_module(module), name)
    except ModuleNotFoundError:
        return {}
    return found


TINY: dict[str, Callable[[], Any]] = TINY_DECODERS | _others("tests.tiny_encoders", "TINY_ENCODERS")
