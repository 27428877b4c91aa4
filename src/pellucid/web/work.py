"""What a worker computes: the tokens of a prompt, and the result of a job. Requests are plain JSON, checked before."""

from __future__ import annotations

import importlib
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from pellucid.core.errors import InputError, PellucidError
from pellucid.core.metadata import annotations_of
from pellucid.core.pairs import Pair
from pellucid.core.params import Named
from pellucid.core.results import Evidence, Explanation, Result
from pellucid.core.targets import Target

if TYPE_CHECKING:
    from pellucid.core.catalogue import Entry
    from pellucid.models.edits import Edit
    from pellucid.models.subject import Subject

CHECKS = 1.5  # `explain` may spend half of what its methods cost on the deletion check
OpenResult = Callable[[int], Result]


def edited(subject: Subject, given: Sequence[Mapping[str, Any]]) -> Subject:
    """Return a view of a model with the edits of a request; the model that others ask stays as it is."""
    return subject.with_(*(_edit(subject, one) for one in given)) if given else subject


def _edit(subject: Subject, given: Mapping[str, Any]) -> Edit:
    import torch

    from pellucid.engine.capture import capture
    from pellucid.models.edits import Edit

    value = given.get("value")
    if "from" in given:
        value = capture(subject, given["from"]["prompt"], [given["site"]])[given["site"]]
    elif isinstance(value, list):
        try:
            value = torch.tensor(value, dtype=torch.float32)
        except (TypeError, ValueError) as error:
            raise InputError(f"The value of an edit is no list of numbers ({error}); correct it.") from None
    elif value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
        raise InputError(f"The value of an edit is {value!r}; give a number or a list of numbers.")
    return Edit(given["site"], given["how"], value, given.get("where", {}), given.get("phase", "all"))


def computed(subjects: Mapping[str, Subject], request: Mapping[str, Any], open_result: OpenResult) -> Result:
    """Return the result of a job.

    Args:
        subjects: the models that the job names, by id.
        request: the body of the job.
        open_result: opens a saved result by its number.

    Raises:
        PellucidError: the request does not fit the method or the model, in one sentence.
    """
    subject = edited(subjects[request["model"]], request.get("edits", []))
    if request["method"] == "explain":
        return _explained(subject, request)
    methods: Any = importlib.import_module("pellucid.methods")
    entry: Entry = methods.find(request["method"])
    types = annotations_of(methods.function(entry.name))
    own = {key: value_of(value, types.get(key), open_result) for key, value in request.get("parameters", {}).items()}
    own |= {
        key: value_of(request[key], types.get(key), open_result) for key in ("target", "contrast") if key in request
    }
    positional: list[Any] = []
    if entry.parameters and entry.parameters[0]["name"] == "models":
        positional.append([subjects[name] for name in request["models"]])
    elif entry.parameters and entry.parameters[0]["name"] == "subject":
        positional.append(subject)
    positional += _input(request)
    result = methods.run(entry.name, *positional, preset=request.get("preset", ""), budget=request.get("budget"), **own)
    return _kept(entry, result, own)


def _input(request: Mapping[str, Any]) -> list[Any]:
    if "pair" in request:
        return [_pair(request["pair"])]
    return [request[key] for key in ("prompt", "input") if key in request][:1]


def _explained(subject: Subject, request: Mapping[str, Any]) -> Result:
    import pellucid

    given = dict(request.get("parameters", {}))
    if request.get("budget") is not None:
        given["budget"] = request["budget"]
    if isinstance(given.get("unit"), list):
        given["unit"] = [tuple(span) for span in given["unit"]]
    known = ("methods", "unit", "generate", "budget", "seed")
    unknown = [key for key in given if key not in known]
    if unknown:
        raise InputError(f"explain has no parameter {unknown[0]!r}; it takes {', '.join(known)}.")
    found = pellucid.explain(
        subject, request["prompt"], target=target_of(request.get("target")), contrast=request.get("contrast"), **given
    )
    assert isinstance(found, Explanation)
    return found


def _kept(entry: Entry, result: Any, own: Mapping[str, Any]) -> Result:
    """Return what is saved: a result, or, for a metric, the result that was measured with the evidence on it."""
    if isinstance(result, Evidence):
        measured = next((value for value in own.values() if isinstance(value, Result)), None)
        return (measured or Explanation(title=entry.name)).with_evidence(result)
    if isinstance(result, Result):
        return result
    if isinstance(result, list) and result and all(isinstance(one, Result) for one in result):
        return Explanation(title=f"{entry.name} of {len(result)} prompts", results=tuple(result))
    raise InputError(f"{entry.name} gave a {type(result).__name__}, which cannot be kept; call it from Python.")


def value_of(value: Any, annotation: Any, open_result: OpenResult) -> Any:
    """Turn a JSON value into what an annotation asks for: a saved result, a pair, a target, ranges; else as it is."""
    if isinstance(value, dict) and "result" in value and set(value) <= {"result", "part"}:
        return _saved(value, open_result)
    names = _names(annotation)
    if isinstance(value, dict) and "Pair" in names and {"clean", "corrupt"} <= set(value):
        return _pair(value)
    if isinstance(value, dict) and Target in names:
        return target_of(value)
    if isinstance(value, list):
        items = [value_of(item, annotation, open_result) for item in value]
        return [tuple(item) if isinstance(item, list) else item for item in items]
    return value


def _names(annotation: Any) -> set[Any]:
    """Return the classes that occur anywhere in an annotation; those known by name alone as that name."""
    if isinstance(annotation, Named):
        return {annotation.name}
    if isinstance(annotation, tuple):
        return {name for part in annotation for name in _names(part)}
    return (
        {annotation} | {name for part in typing.get_args(annotation) for name in _names(part)}
        if isinstance(annotation, type) or typing.get_args(annotation)
        else set()
    )


def _saved(value: Mapping[str, Any], open_result: OpenResult) -> Result:
    if not str(value["result"]).isdecimal():
        raise InputError(f"The result {str(value['result'])[:40]!r} is no id; give one that the list of runs shows.")
    result = open_result(int(value["result"]))
    part = value.get("part")
    if part is None:
        return result
    parts = result.results if isinstance(result, Explanation) else ()
    if not isinstance(part, int) or not 0 <= part < len(parts):
        raise InputError(f"The result {value['result']} has no part {part!r}; it has {len(parts)}.")
    return parts[part]


def _pair(given: Mapping[str, Any]) -> Pair:
    alignment = given.get("alignment")
    pairs = None if alignment is None else tuple((int(a), int(b)) for a, b in alignment)
    return Pair(given["clean"], given["corrupt"], pairs)


def target_of(given: Any) -> Any:
    """Return a target: a token id, a text or a list of ids as it is, fields as a `Target`."""
    if not isinstance(given, dict):
        return given
    try:
        return Target(**given)
    except TypeError as error:
        raise InputError(f"The target does not fit ({error}); see the guide on targets.") from None


def estimated(subject: Subject, request: Mapping[str, Any]) -> dict[str, float] | None:
    """Return what a job will take, or None where that is not known before it runs."""
    if "prompt" not in request:
        return None
    given = {key: value for key, value in request.get("parameters", {}).items() if not isinstance(value, dict)}
    given |= {"target": target_of(request["target"])} if "target" in request else {}
    given |= {"contrast": request["contrast"]} if "contrast" in request else {}
    names: Any = [request["method"]]
    if request["method"] == "explain":
        names = given.pop("methods", "auto")
        names = ["integrated_gradients", "occlusion"] if names == "auto" else names
        given = {key: value for key, value in given.items() if key in ("target", "contrast", "unit")}
    checks = CHECKS if request["method"] == "explain" else 1.0
    methods: Any = importlib.import_module("pellucid.methods")
    try:
        found = [asdict(methods.estimate(name, subject, request["prompt"], **given)) for name in names]
    except (PellucidError, KeyError, TypeError, ValueError):
        return None
    parts = ("seconds", "forwards", "backwards")
    return {"bytes": max(one["bytes"] for one in found), **{p: checks * sum(one[p] for one in found) for p in parts}}


def described(subject: Subject) -> dict[str, Any]:
    """Return what a list of models shows of a loaded one."""
    model, tokenizer, layout = subject.model, subject.tokenizer, subject.layout
    heads = next(iter(layout.stacks.values())).heads.query if layout is not None else None
    classes = dict(getattr(model.config, "id2label", None) or {}) if subject.head == "classification" else {}
    return {
        "family": str(getattr(model.config, "model_type", "")),
        "layers": subject.layers if layout is not None else None,
        "heads": heads,
        "kind": subject.kind,
        "head": subject.head,
        "vocabulary": subject.vocabulary,
        "longest": subject.max_length,
        "chat": bool(getattr(tokenizer, "chat_template", None)),
        "classes": [str(classes[i]) for i in sorted(classes)],
        "capabilities": sorted(subject.capabilities),
        "dtype": subject.dtype,
        "device": subject.device,
        "revision": subject.revision,
        "hash": subject.weights_hash(),
    }
