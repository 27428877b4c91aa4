"""Modules that can be called: `pellucid.methods()` and `pellucid.explain(...)` work whatever was imported first.

`pellucid.explain` is both a module (its file) and a function; Python binds the module to that name as soon as anything
imports it. A module that calls the function of its own name makes the two one.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any


class CallableModule(ModuleType):
    """A module that, when called, calls its own function of the same name."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the function that the module is named after."""
        return self._function(*args, **kwargs)

    @property
    def _function(self) -> Callable[..., Any]:
        function: Callable[..., Any] = getattr(self, self.__name__.rpartition(".")[2])
        return function

    @property
    def __signature__(self) -> inspect.Signature:
        """Return the signature of that function, for `help` and editors."""
        return inspect.signature(self._function)


def make_callable(module: str) -> None:
    """Make the imported module `module` (pass `__name__`) callable; it must define a function of its own last name."""
    sys.modules[module].__class__ = CallableModule
