"""The decorators that make a function a method, a metric or a study: metadata, checks and provenance.

Every keyword of a decorator is a literal, so that `pellucid.core.catalogue` can read it from the source alone.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeVar, cast

from pellucid.core.axes import AXES
from pellucid.core.call import each_prompt, run
from pellucid.core.cost import check_cost, evaluate_cost
from pellucid.core.errors import InputError, did_you_mean
from pellucid.core.params import check, resolve, shown
from pellucid.core.prompts import is_many

__all__ = ["Metadata", "evaluate_cost", "is_many", "method", "metric", "study"]

TAKES = ("prompt", "pair", "dataset", "labels", "corpus", "models")
NEEDS = ("scores", "logits", "gradients", "activations", "attention", "weights", "generate")
PRODUCES = ("scores", "graph", "table", "text", "examples", "learned", "weight_edit", "explanation", "evidence")
Role = Literal["method", "metric", "study"]
Function = TypeVar("Function", bound=Callable[..., Any])


@dataclass(frozen=True)
class Metadata:
    """What a decorated function says of itself.

    `rows` are ids of the map; `takes` what the function is given; `produces` the kind of result; `axes` the axes of
    that result in a plain call; `needs` the capabilities of the subject; `cost` the rows forward (F) and backward (B)
    as an expression over counts; `better` and `chance` the direction and the chance level of a metric; `patent` a note
    for users.
    """

    name: str
    kind: Role
    rows: tuple[str, ...]
    paper: str
    takes: str
    produces: str
    axes: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    cost: str = ""
    better: str = ""
    chance: float | int | None = None
    patent: str = ""

    def __post_init__(self) -> None:
        """Check every field against the words that are defined for it."""
        fields: tuple[tuple[str, tuple[str, ...], Any], ...] = (
            ("takes", (self.takes,), TAKES), ("produces", (self.produces,), PRODUCES), ("needs", self.needs, NEEDS),
            ("axes", self.axes, AXES), ("better", (self.better,), ("", "higher", "lower")),
        )  # fmt: skip
        for field, values, allowed in fields:
            for value in values:
                if value not in allowed:
                    hint = did_you_mean(value, allowed)
                    raise InputError(
                        f"{self.name} declares {field} {value!r}, which is not one of {sorted(allowed)}{hint}."
                    )
        if self.kind == "metric" and not self.better:
            raise InputError(
                f'{self.name} is a metric and must say which direction is better: better="higher" or "lower".'
            )


def method(
    *,
    rows: tuple[str, ...],
    paper: str,
    takes: str,
    produces: str,
    axes: tuple[str, ...] = (),
    needs: tuple[str, ...] = (),
    cost: str = "",
    patent: str = "",
) -> Callable[[Function], Function]:
    """Make a function a method: it checks its arguments, maps over prompts and attaches provenance to its result."""

    def decorate(function: Function) -> Function:
        return _decorate(
            function,
            Metadata(function.__name__, "method", rows, paper, takes, produces, axes, needs, cost, patent=patent),
        )

    return decorate


def metric(
    *,
    rows: tuple[str, ...],
    paper: str,
    takes: str,
    produces: str,
    better: str,
    chance: float | int | None = None,
    needs: tuple[str, ...] = (),
    cost: str = "",
) -> Callable[[Function], Function]:
    """Make a function a metric of explanations or models; `better` is "higher" or "lower", `chance` is guessing."""

    def decorate(function: Function) -> Function:
        return _decorate(
            function,
            Metadata(function.__name__, "metric", rows, paper, takes, produces, (), needs, cost, better, chance),
        )

    return decorate


def study(
    *, rows: tuple[str, ...], paper: str, takes: str, produces: str, needs: tuple[str, ...] = (), cost: str = ""
) -> Callable[[Function], Function]:
    """Make a function a study: a published experimental protocol that runs on any model."""

    def decorate(function: Function) -> Function:
        return _decorate(function, Metadata(function.__name__, "study", rows, paper, takes, produces, (), needs, cost))

    return decorate


def _decorate(function: Function, metadata: Metadata) -> Function:
    signature = inspect.signature(function)
    check_cost(metadata.cost, signature.parameters)

    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        bound = _bind(metadata.name, signature, args, kwargs)
        names = list(bound.arguments)
        _require_subject(metadata.name, names, bound.arguments)
        prompt = names[1] if metadata.takes == "prompt" and len(names) > 1 else ""
        if prompt and is_many(bound.arguments[prompt]):
            return each_prompt(metadata.name, wrapper, bound.arguments, prompt)
        check(metadata.name, annotations_of(function), bound.arguments)
        result, provenance = run(function, bound, metadata.name, metadata.needs)
        if metadata.produces == "evidence":
            return result
        return replace(result, provenance=replace(provenance, rows=metadata.rows, paper=metadata.paper))

    wrapper.__dict__["metadata"] = metadata
    return cast("Function", wrapper)


def metadata_of(function: Callable[..., Any]) -> Metadata:
    """Return the metadata of a decorated function."""
    found = getattr(function, "metadata", None)
    if not isinstance(found, Metadata):
        raise InputError(
            f"{shown(function)} is no method, metric or study; decorate it with pellucid.core.metadata.method."
        )
    return found


@functools.cache
def annotations_of(function: Callable[..., Any]) -> Mapping[str, Any]:
    """Return the type per parameter, for those in the closed list; aliases of the function's own file count too."""
    found: dict[str, Any] = {}
    for name, parameter in inspect.signature(function).parameters.items():
        if parameter.annotation is inspect.Parameter.empty:
            continue
        try:
            found[name] = resolve(parameter.annotation, inspect.unwrap(function).__globals__)
        except LookupError:
            continue
    return found


def _bind(
    name: str, signature: inspect.Signature, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> inspect.BoundArguments:
    known = list(signature.parameters)
    for key in kwargs:
        if key not in known:
            hint = did_you_mean(key, known) or f"; it takes {', '.join(known)}"
            raise InputError(f"{name} has no parameter {key!r}{hint}.")
    try:
        bound = signature.bind(*args, **kwargs)
    except TypeError as error:
        raise InputError(
            f"{name} was called with arguments that do not fit ({error}); it takes {name}{signature}."
        ) from None
    bound.apply_defaults()
    return bound


def _require_subject(name: str, names: list[str], arguments: Mapping[str, Any]) -> None:
    """Check that the first argument is a Subject; recognised by what it can do, because core imports no model code."""
    if not names or names[0] != "subject":
        return
    subject = arguments["subject"]
    if not all(hasattr(subject, part) for part in ("encode", "require", "recorded", "provenance")):
        raise InputError(
            f"{name} got {shown(subject)} as its subject, which is a {type(subject).__name__}; "
            "pass pellucid.load(name_or_path_or_model)."
        )
