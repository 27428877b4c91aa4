"""How a decorated function is run: over each prompt of a sequence, counted, and with its provenance."""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import replace
from typing import Any, cast

from pellucid.core.errors import Cancelled, InputError, PellucidError
from pellucid.core.jsonable import parameter
from pellucid.core.results import Provenance

PER_PROMPT = ("target", "contrast", "scores", "result")


def each_prompt(name: str, function: Callable[..., Any], arguments: Mapping[str, Any], prompt: str) -> list[Any]:
    """Call `function` once per prompt of `arguments[prompt]` and return the list of results, in order.

    A list for `target`, `contrast`, `scores` or `result` whose items are not whole numbers gives one value per prompt;
    anything else holds for all prompts.

    Raises:
        InputError: Such a list is not as long as the sequence of prompts.
        PellucidError: Any error of one prompt, with the number of that prompt in front.
    """
    prompts: list[Any] = list(arguments[prompt])
    series = {key: value for key, value in arguments.items() if key in PER_PROMPT and _is_series(value)}
    for key, values in series.items():
        if len(values) != len(prompts):
            raise InputError(
                f"{name} got {len(values)} values of {key} for {len(prompts)} prompts; give one each, or one for all."
            )
    results: list[Any] = []
    for index, single in enumerate(prompts):
        own = {key: values[index] for key, values in series.items()}
        try:
            results.append(function(**{**arguments, **own, prompt: single}))
        except Cancelled:
            raise
        except PellucidError as error:
            raise type(error)(f"Prompt {index + 1} of {len(prompts)}: {error}") from error
    return results


def _is_series(value: Any) -> bool:
    """Say whether a list holds one value per prompt (texts, results, targets, id lists) rather than the ids of one."""
    if not isinstance(value, list):
        return False
    items = cast("list[Any]", value)
    return bool(items) and not all(hasattr(item, "__index__") for item in items)


def run(
    function: Callable[..., Any], bound: inspect.BoundArguments, name: str, needs: Iterable[str]
) -> tuple[Any, Provenance]:
    """Run a function on checked arguments and return its result and the provenance of the run.

    The subject is the argument `subject`; where the first argument is `models`, all of them are, and their passes are
    summed.
    """
    values = list(bound.arguments.items())
    subjects = _subjects(*values[0]) if values else []
    hidden = _hidden(bound) if subjects else 0
    parameters = {key: parameter(value) for key, value in values[hidden:]}
    seed = bound.arguments.get("seed")
    for subject in subjects:
        subject.require(needs, name)
    started = time.perf_counter()
    with ExitStack() as stack:
        records = [stack.enter_context(subject.recorded()) for subject in subjects]
        result = function(*bound.args, **bound.kwargs)
    seconds = time.perf_counter() - started
    if not subjects:
        return result, Provenance(method=name, parameters=parameters, seed=seed, seconds=seconds)
    provenance: Provenance = subjects[0].provenance(
        method=name, parameters=parameters, record=records[0], seed=seed, rows=(), paper=""
    )
    if len(subjects) > 1:
        provenance = replace(
            provenance,
            model=" + ".join(subject.name for subject in subjects),
            seconds=seconds,
            forwards=sum(record.forwards for record in records),
            backwards=sum(record.backwards for record in records),
        )
    return result, provenance


def _hidden(bound: inspect.BoundArguments) -> int:
    """Return how many arguments are the subject and what it is given; a parameter that must be named is neither."""
    kinds = [bound.signature.parameters[name].kind for name in list(bound.arguments)[:2]]
    return sum(kind is not inspect.Parameter.KEYWORD_ONLY for kind in kinds)


def _subjects(name: str, value: Any) -> list[Any]:
    if name == "subject":
        return [value]
    return list(value) if name == "models" else []
