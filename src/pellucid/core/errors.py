"""Every error a user can meet, each one sentence: what was asked, what was found, what to do.

PellucidError
├── InputError        the prompt, the units or an argument
├── TargetError       what should be explained
├── SiteError         a place inside the model
├── LayoutError       an architecture that could not be proved
├── ModelError        the model itself: missing, broken weights, wrong device
├── CapabilityError   the subject cannot do what the method needs
├── EditError         an edit that raised, never fired or has the wrong shape
├── FileError         a result or model file
├── GeneratorError    a text generator or its server
├── ResourceError     memory, time or disk
├── MissingExtra      an optional package
└── Cancelled         the user stopped the run
"""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Iterable
from types import ModuleType


class PellucidError(Exception):
    """Base of all errors that pellucid raises on purpose."""


class InputError(PellucidError, ValueError):
    """The prompt, its units or an argument cannot be used."""


class TargetError(PellucidError, ValueError):
    """The thing to explain is not what the model or the method can explain."""


class SiteError(PellucidError, ValueError):
    """A site is unknown, or this model lacks it."""


class LayoutError(PellucidError):
    """The architecture was not recognised, or a proof of its layout failed."""


class ModelError(PellucidError):
    """The model cannot be loaded or used as it is."""


class CapabilityError(PellucidError):
    """The subject lacks a capability that the method needs."""


class EditError(PellucidError):
    """An edit raised, never fired, or returned a value of the wrong shape."""


class FileError(PellucidError):
    """A file is missing, half written, corrupted or of an unknown version."""


class GeneratorError(PellucidError):
    """A text generator, or the server behind it, failed."""


class ResourceError(PellucidError):
    """There is not enough memory, time or disk for what was asked."""


class MissingExtra(PellucidError, ImportError):
    """An optional package is not installed."""


class Cancelled(PellucidError):
    """The run was stopped between two batches at the user's request."""


def did_you_mean(name: str, options: Iterable[str]) -> str:
    """Return " (did you mean 'x'?)" for the closest option, or the empty string."""
    close = difflib.get_close_matches(name, list(options), n=1, cutoff=0.5)
    return f" (did you mean {close[0]!r}?)" if close else ""


def optional(module: str, extra: str, feature: str) -> ModuleType:
    """Import an optional module, or raise `MissingExtra` with the line that installs it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingExtra(
            f"{feature} needs the package {module.split('.')[0]!r}, which is not installed; "
            f'install it with: pip install "pellucid[{extra}]".'
        ) from error
