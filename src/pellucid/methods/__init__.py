"""The registry: what can be run, and `run`. Nothing here imports torch; a method's file is imported when it is run."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from pellucid.core.callable_module import make_callable
from pellucid.core.catalogue import Entry, entries, find_entry
from pellucid.core.errors import InputError, did_you_mean
from pellucid.core.params import PositiveFloat, check
from pellucid.core.presets import presets
from pellucid.core.targets import Target

__all__ = ["estimate", "find", "function", "methods", "run"]


def methods() -> list[dict[str, Any]]:
    """Return the metadata of every method, metric, study and view, sorted by kind, family and name.

    Each is a dict with `name, kind, family, module, summary, rows, paper, takes, produces, axes, needs, cost, better,
    chance, patent` and `parameters`, read from the source files; nothing is imported.
    """
    return [entry.as_dict() for entry in entries()]


def find(name: str) -> Entry:
    """Return the entry of one method, metric or study; raise `InputError` with the closest name when there is none."""
    entry = find_entry(name)
    if entry is None or entry.kind == "view":
        known = [other.name for other in entries() if other.kind != "view"]
        raise InputError(
            f"There is no method {name!r}{did_you_mean(name, known) or '; pellucid.methods() lists them'}."
        )
    return entry


def function(name: str) -> Callable[..., Any]:
    """Import the file of a method, metric or study and return its function; raise `InputError` when there is none."""
    entry = find(name)
    found: Callable[..., Any] = getattr(importlib.import_module(entry.module), entry.name)
    return found


def run(
    name: str, subject: Any, /, *args: Any, preset: str = "", budget: float | None = None, **parameters: Any
) -> Any:
    """Run a method, metric or study by name and return its result (a list of them for a sequence of prompts).

    The same as importing the function from its file and calling it.

    Args:
        name: The method, for example "integrated_gradients".
        subject: What `pellucid.load` returned.
        *args: The prompt, or what else the method is given.
        preset: The name of a toolkit whose conventions are taken for every parameter that is not given; see
            `pellucid.presets`.
        budget: The seconds that may be spent: where more are estimated, fewer samples and then coarser units are taken,
            as the evidence of the result says; what is given in `parameters` stays.
        **parameters: The parameters of the method.

    Raises:
        InputError: The method, the preset or a parameter is unknown, or a value does not fit.
        ResourceError: No form of the method fits into the budget; nothing was run.
    """
    called = function(name)
    if preset:
        parameters = _with_preset(preset, called, parameters)
    if budget is None:
        return called(subject, *args, **parameters)
    check("run", {"budget": PositiveFloat}, {"budget": budget})
    engine: Any = importlib.import_module("pellucid.engine.budget")
    return engine.run_within(find(name), called, subject, args, parameters, budget)


def estimate(name: str, subject: Any, /, *args: Any, preset: str = "", **parameters: Any) -> Any:
    """Estimate what `run` with the same arguments would take: `seconds`, `bytes`, `forwards`, `backwards`.

    The model is measured for a few seconds at the first call. An approximation: within a factor of 1.5 in time and 0.7
    to 1.2 in memory on tested models, where the machine does nothing else.

    Raises:
        InputError: What the method takes or costs is not known before it runs.
    """
    if preset:
        parameters = _with_preset(preset, function(name), parameters)
    engine: Any = importlib.import_module("pellucid.engine.budget")
    entry = find(name)
    return engine.price(entry, engine.question_of(entry, subject, args, parameters), parameters)


def _with_preset(preset: str, called: Callable[..., Any], given: dict[str, Any]) -> dict[str, Any]:
    """Add a preset's arguments; its measure goes into the target where the method has no parameter for it."""
    known = tuple(inspect.signature(called).parameters)
    filled = {**presets(preset, known), **given}
    measure = presets(preset).get("measure")
    target = given.get("target")
    if measure and "measure" not in known and "target" in known:
        if not isinstance(target, Target):
            filled["target"] = Target(target, measure=measure)
        elif target.measure == "auto":
            filled["target"] = replace(target, measure=measure)
    return filled


make_callable(__name__)
