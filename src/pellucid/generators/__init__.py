"""Text generation behind one small interface: a local model, an OpenAI-compatible server, or a script of known skill.

Everything here can be imported without torch; `LocalGenerator` loads it when it is first named.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pellucid.generators.cache import Cached
from pellucid.generators.interface import YES_NO, Generator, Reply, Request, answers, ask_yes_no
from pellucid.generators.limits import Limits
from pellucid.generators.scorer import choice_scorer
from pellucid.generators.scripted import ScriptedGenerator
from pellucid.generators.server import ServerGenerator

if TYPE_CHECKING:
    from pellucid.generators.local import LocalGenerator

__all__ = [
    "YES_NO",
    "Cached",
    "Generator",
    "Limits",
    "LocalGenerator",
    "Reply",
    "Request",
    "ScriptedGenerator",
    "ServerGenerator",
    "answers",
    "ask_yes_no",
    "choice_scorer",
]


def __getattr__(name: str) -> object:
    """Import `LocalGenerator` when it is first asked for, because it needs torch."""
    if name == "LocalGenerator":
        from pellucid.generators.local import LocalGenerator

        return LocalGenerator
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
