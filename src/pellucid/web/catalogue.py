"""The methods as forms need them, and the check of a job against them; read from source, without torch."""

from __future__ import annotations

import ast
import math
from collections.abc import Mapping
from functools import cache
from typing import Any

from pellucid.core.catalogue import PACKAGE, Entry, argument_docs, entries, summary
from pellucid.core.errors import InputError, did_you_mean
from pellucid.core.params import describe, resolve
from pellucid.core.results import KINDS
from pellucid.web.bodies import JobBody

HIDDEN = ("subject", "models")
BY_FIELD = ("target", "contrast", "budget")
UNSAYABLE = {"function", "Generator", "Edit", "Fact", "Units", "Tokens", "Subject"}
TAKES = {"prompt": ("prompt",), "pair": ("pair", "prompt")}


def methods(model: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    """Return everything that can be asked, "explain" first; `available` for a model where one is given."""
    return [_method(entry, model) for entry in [explain_entry(), *(e for e in entries() if e.kind != "view")]]


def find(name: str) -> Entry:
    """Return an entry by name; raise `InputError` with the closest name where there is none."""
    known = {entry.name: entry for entry in entries() if entry.kind != "view"} | {"explain": explain_entry()}
    if name not in known:
        hint = did_you_mean(name, known) or "; GET /api/v1/methods lists them"
        raise InputError(f"There is no method {name!r}{hint}.")
    return known[name]


@cache
def explain_entry() -> Entry:
    """Return the front door as an entry, from its source."""
    tree = ast.parse((PACKAGE / "explain.py").read_text(encoding="utf-8"))
    node = next(n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name == "explain")
    text = ast.get_docstring(node) or ""
    docs = argument_docs(text)
    plain = [{"name": name, "required": True, "keyword": False} for name in ("subject", "prompt")]
    own = [
        {
            "name": argument.arg, "annotation": annotation, "required": False, "keyword": True,
            "default": ast.literal_eval(default or ast.Constant(None)), "doc": docs.get(argument.arg, ""),
            **describe(resolve(annotation)),
        }
        for argument, default in zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True)
        for annotation in [ast.unparse(argument.annotation or ast.Constant(None))]
    ]  # fmt: skip
    return Entry(
        "explain", "explain", "explain", "pellucid.explain", summary(text), takes="prompt", produces="explanation",
        parameters=(*plain, *own),
    )  # fmt: skip


def _method(entry: Entry, model: Mapping[str, Any] | None) -> dict[str, Any]:
    reason = _lacking(entry, model)
    fields = ("name", "kind", "family", "summary", "paper", "patent", "takes", "produces", "cost", "better")
    return {
        **{name: getattr(entry, name) for name in fields},
        **{name: list(getattr(entry, name)) for name in ("rows", "axes", "needs")},
        "parameters": [_sound(parameter) for parameter in settable(entry)],
        "available": not reason,
        "reason": reason,
    }


def _sound(parameter: Mapping[str, Any]) -> dict[str, Any]:
    """Return a parameter whose default JSON can carry."""
    default = parameter["default"]
    endless = isinstance(default, float) and not math.isfinite(default)
    return {**parameter, "default": str(default) if endless else default}


def settable(entry: Entry) -> list[dict[str, Any]]:
    """Return the parameters that a request sets by name: not the model, nor what the method is given."""
    own = list(entry.parameters)
    if own and own[0]["name"] in HIDDEN:
        given = len(own) > 1 and not own[1].get("keyword", False)
        own = own[2:] if given else own[1:]
    return own


def _lacking(entry: Entry, model: Mapping[str, Any] | None) -> str:
    """Say why a method cannot be asked through the API, or return the empty string."""
    for parameter in settable(entry):
        kinds = {parameter["kind"], *parameter["also"]}
        if parameter["required"] and kinds <= UNSAYABLE:
            return f"It needs {parameter['name']}, which is {parameter['words']}; call it from Python."
    if model is None or model["state"] != "ready":
        return ""
    missing = [need for need in entry.needs if need not in model["capabilities"]]
    if missing:
        return f"It needs {' and '.join(missing)}, which the model ({model['kind']}, {model['head']}) does not offer."
    return ""


def check(body: JobBody, model: Mapping[str, Any], known_models: Mapping[str, Any], longest: int) -> None:
    """Check what can be checked of a job before it is queued.

    Raises:
        InputError: the method, what it is given, or a parameter does not fit.
    """
    entry = find(body.method)
    reason = _lacking(entry, model)
    if reason:
        raise InputError(f"{body.method} cannot be run here: {reason}")
    _check_given(entry, body, known_models)
    check_length(body, longest)
    own = {parameter["name"]: parameter for parameter in settable(entry)}
    for name, value in body.parameters.items():
        if name in BY_FIELD and name in (*own, "budget"):
            raise InputError(f"{name} is a field of the job, not one of its parameters; move it there.")
        if name not in own:
            hint = did_you_mean(name, own) or f"; it takes {', '.join(own)}"
            raise InputError(f"{body.method} has no parameter {name!r}{hint}.")
        choices = own[name]["choices"]
        if choices and not own[name]["also"] and value not in choices and value is not None:
            raise InputError(f"{body.method} got {name}={value!r}; choose one of {choices}.")
    for name in ("target", "contrast"):
        if getattr(body, name) is not None and name not in own:
            raise InputError(f"{body.method} takes no {name}; leave it out.")
    missing = [name for name, parameter in own.items() if parameter["required"] and name not in body.parameters]
    if missing:
        kind = own[missing[0]]["kind"]
        how = ' as {"result": "<id>"}' if kind in KINDS else ""
        raise InputError(f"{body.method} needs the parameter {missing[0]!r}; give it in 'parameters'{how}.")


def _check_given(entry: Entry, body: JobBody, known_models: Mapping[str, Any]) -> None:
    own = entry.parameters
    compares = bool(own) and own[0]["name"] == "models"
    if compares != bool(body.models):
        raise InputError(
            f"{body.method} {'compares several models' if compares else 'asks one model'}; "
            f"{'give their ids in' if compares else 'leave out'} 'models'."
        )
    strange = [name for name in body.models if name not in known_models]
    if strange:
        raise InputError(f"There is no model {strange[0]!r}; the server has {', '.join(known_models)}.")
    first = 1 if own and own[0]["name"] in HIDDEN else 0
    asked = len(own) > first and not own[first].get("keyword", False)
    given = [name for name in ("prompt", "pair", "input") if getattr(body, name) is not None]
    wanted = TAKES.get(entry.takes, ("input", "prompt")) if asked else ()
    if given and given[0] not in wanted:
        raise InputError(f"{body.method} is given {wanted[0] if wanted else 'nothing'}, not {given[0]!r}; correct it.")
    if asked and own[first]["required"] and not given:
        raise InputError(f"{body.method} needs {wanted[0]!r}; give it.")


def check_length(body: Any, longest: int) -> None:
    """Raise `InputError` for a text that is longer than the server takes."""
    todo = [body.model_dump()]
    while todo:
        item = todo.pop()
        if isinstance(item, str) and len(item) > longest:
            raise InputError(
                f"A text of {len(item)} characters was given, and at most {longest} are taken; shorten it."
            )
        if isinstance(item, dict):
            todo += item.values()
        elif isinstance(item, list):
            todo += item
