"""Results as strict JSON and back: every kind, exact arrays, NaN and infinities, any text, tuples and nested values.

Fields are rebuilt by their declared types. Where the type does not say what a value was (a parameter may be
anything), an object with one key that starts with "$" does:

    {"$tensor": name}                       an array kept beside the JSON
    {"$array": {dtype, shape, values, nan, inf, -inf}}   an array inside the JSON: null where a value has no number
    {"$float": "nan" | "inf" | "-inf"}      a number that JSON lacks
    {"$tuple": [...]}, {"$mapping": [[key, value], ...]}, {"$value": {class, fields}}
    {"$characters": [code points]}          text that JSON would join (two halves of a surrogate pair)
    {"$repr": text}                         anything else, opened as its description
"""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import re
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any, TypeGuard, cast

import numpy as np

from pellucid.core.axes import Site
from pellucid.core.errors import FileError, InputError, did_you_mean
from pellucid.core.results import KINDS, Evidence, Provenance, Result
from pellucid.core.targets import Target
from pellucid.core.tokens import Tokens, Units

VALUES: dict[str, type] = {value.__name__: value for value in (Tokens, Units, Provenance, Evidence, Target, Site)}
NUMERIC = frozenset(
    np.dtype(name)
    for name in (
        "bool",
        "int8",
        "int16",
        "int32",
        "int64",
        "uint8",
        "uint16",
        "uint32",
        "uint64",
        "float16",
        "float32",
        "float64",
    )
)
_PAIR = re.compile("[\ud800-\udbff][\udc00-\udfff]")
_REPR_LENGTH = 2000
_DATA: tuple[Any, ...] = (Result, *VALUES.values())

KeepArray = Callable[[str, np.ndarray], Any]
LoadArray = Callable[[Any], np.ndarray]


def as_json(result: Result) -> str:
    """Return the whole result as one line of strict ASCII JSON, arrays included (NaN is null plus its place)."""
    return dump(encode(result, _inline))


def from_json(text: str) -> Result:
    """Rebuild a result from `as_json`; raise `FileError` when the text is not one."""
    return decode(parse(text, "The text"), _from_inline, "The text")


def dump(document: Any, *, indent: int | None = None) -> str:
    """Write an encoded document as strict JSON: ASCII, and no NaN or Infinity, which JSON does not have."""
    return json.dumps(document, ensure_ascii=True, allow_nan=False, indent=indent)


def parse(text: str | bytes, name: str) -> Any:
    """Read JSON strictly; raise `FileError` that begins with `name` and says where the text breaks."""
    try:
        return json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise FileError(
            f"{name} is not valid JSON ({error}); it was cut or changed, so save the result again."
        ) from None


def encode(result: Result, keep: KeepArray) -> dict[str, Any]:
    """Return the JSON document of a result; `keep(name, array)` stores each array and returns what stands for it."""
    if type(result).__name__ not in KINDS:
        raise InputError(
            f"Saving was asked for a {type(result).__name__}, which is no kind of result; use {list(KINDS)}."
        )
    document: dict[str, Any] = _encode(result, Any, "result", keep)
    return document


def encode_value(value: Any) -> Any:
    """Return any plain value as JSON, arrays inline, for example a configuration or a prompt."""
    return _encode(value, Any, "value", _inline)


def decode(document: Any, load: LoadArray, name: str) -> Result:
    """Rebuild a result from `encode`'s document; raise `FileError` that begins with `name` when it does not fit."""
    try:
        if not is_object(document) or "kind" not in document:
            raise ValueError("there is no kind of result")
        result = _decode(document, Any, load)
        if not isinstance(result, Result):
            raise ValueError("it holds no result")
        return result
    except FileError:
        raise
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, OverflowError, RecursionError) as error:
        reason = error.args[0] if error.args else type(error).__name__
        raise FileError(f"{name} is no result that this version can rebuild ({reason}); save it again.") from error


def _encode(value: Any, hint: Any, name: str, keep: KeepArray) -> Any:
    """Encode one value; `hint` is its declared type, `name` the field or key it was found under."""
    hint = _without_none(hint)
    if hint is np.ndarray and value is not None and not isinstance(value, np.ndarray):
        raise InputError(
            f"Saving found a {type(value).__name__} as {name!r}, which must be a NumPy array; convert it first."
        )
    value = _python(value)
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else {"$float": str(float(value))}
    if isinstance(value, str):
        return {"$characters": [ord(c) for c in value]} if _PAIR.search(value) else str(value)
    if isinstance(value, np.ndarray):
        return _encode_array(cast("np.ndarray", value), hint, name, keep)
    if isinstance(value, _DATA):
        return _encode_dataclass(value, hint, keep)
    if isinstance(value, Mapping):
        return _encode_mapping(cast("Mapping[Any, Any]", value), hint, keep)
    if _is_sequence(value):
        items = [_encode(item, _item_hint(hint, i), name, keep) for i, item in enumerate(value)]
        return {"$tuple": items} if isinstance(value, tuple) and typing.get_origin(hint) is not tuple else items
    return {"$repr": repr(value)[:_REPR_LENGTH].encode("utf-8", "replace").decode()}


def _python(value: Any) -> Any:
    """Return a NumPy scalar as Python's own number; anything else as it is."""
    if not isinstance(value, np.generic):
        return value
    number: Any = cast("Any", value).item()
    return number


def _encode_array(array: np.ndarray, hint: Any, name: str, keep: KeepArray) -> Any:
    native: np.dtype[Any] = cast("Any", array.dtype).newbyteorder("=")
    array = array.astype(native, copy=False)
    if array.dtype in NUMERIC:
        return keep(name, array)
    if hint is np.ndarray:
        raise InputError(
            f"Saving found {name!r} with the dtype {array.dtype}; convert it to a float, an integer or bool."
        )
    return {"$repr": repr(array)[:_REPR_LENGTH]}


def _encode_dataclass(value: Any, hint: Any, keep: KeepArray) -> dict[str, Any]:
    kind: type = value.__class__
    hints = _hints(kind)
    fields = {f.name: _encode(getattr(value, f.name), hints[f.name], f.name, keep) for f in dataclasses.fields(value)}
    if isinstance(value, Result):
        return {"kind": kind.__name__, **fields}
    return fields if hint is kind else {"$value": {"class": kind.__name__, "fields": fields}}


def _encode_mapping(value: Mapping[Any, Any], hint: Any, keep: KeepArray) -> dict[str, Any]:
    item_hint = (*typing.get_args(hint), Any, Any)[1] if typing.get_origin(hint) is not None else Any
    plain = all(isinstance(k, str) and not k.startswith("$") and k != "kind" and not _PAIR.search(k) for k in value)
    if plain:
        return {key: _encode(item, item_hint, key, keep) for key, item in value.items()}
    return {"$mapping": [[_encode(k, Any, "key", keep), _encode(v, item_hint, str(k), keep)] for k, v in value.items()]}


def _decode(value: Any, hint: Any, load: LoadArray) -> Any:
    hint = _without_none(hint)
    if _is_sequence(value):
        items = [_decode(item, _item_hint(hint, i), load) for i, item in enumerate(value)]
        return tuple(items) if typing.get_origin(hint) is tuple else items
    if not is_object(value):
        return value
    tag = next(iter(value)) if len(value) == 1 else ""
    if tag.startswith("$"):
        return _decode_tag(tag, value[tag], hint, load)
    if isinstance(hint, type) and dataclasses.is_dataclass(hint) and not issubclass(hint, Result):
        return _decode_fields(hint, value, load)
    if "kind" in value:
        kind = value["kind"]
        if kind not in KINDS:
            raise ValueError(f"the kind {kind!r} is unknown{did_you_mean(str(kind), KINDS)}")
        return _decode_fields(KINDS[kind], {k: v for k, v in value.items() if k != "kind"}, load)
    item_hint = (*typing.get_args(hint), Any, Any)[1] if typing.get_origin(hint) is not None else Any
    return {key: _decode(item, item_hint, load) for key, item in value.items()}


def _decode_tag(tag: str, value: Any, hint: Any, load: LoadArray) -> Any:
    match tag:
        case "$tensor" | "$array":
            return load({tag: value})
        case "$float":
            return {"nan": float("nan"), "inf": float("inf"), "-inf": float("-inf")}[value]
        case "$characters":
            return "".join(map(chr, value))
        case "$repr":
            return str(value)
        case "$tuple":
            return tuple(_decode(item, Any, load) for item in value)
        case "$mapping":
            item_hint = (*typing.get_args(hint), Any, Any)[1] if typing.get_origin(hint) is not None else Any
            return {_decode(k, Any, load): _decode(v, item_hint, load) for k, v in value}
        case "$value":
            return _decode_fields(VALUES[value["class"]], value["fields"], load)
        case _:
            raise ValueError(f"the mark {tag!r} is unknown")


def _decode_fields(kind: type, fields: Mapping[str, Any], load: LoadArray) -> Any:
    hints = _hints(kind)
    unknown = [name for name in fields if name not in hints]
    if unknown:
        raise ValueError(f"a {kind.__name__} has no field {unknown[0]!r}")
    values = {name: _decode(value, hints[name], load) for name, value in fields.items()}
    for name, value in values.items():
        if _without_none(hints[name]) is np.ndarray and not (isinstance(value, np.ndarray) or value is None):
            raise ValueError(f"the field {name!r} of a {kind.__name__} is no array")
    return kind(**values)


@functools.cache
def _hints(kind: type) -> dict[str, Any]:
    hints = typing.get_type_hints(kind)
    return {f.name: hints[f.name] for f in dataclasses.fields(kind)}


def is_object(value: Any) -> TypeGuard[dict[str, Any]]:
    """Say whether a parsed JSON value is an object."""
    return isinstance(value, dict)


def _is_sequence(value: Any) -> TypeGuard[list[Any] | tuple[Any, ...]]:
    return isinstance(value, list | tuple)


def _without_none(hint: Any) -> Any:
    """Return `X` for `X | None`, and `Any` for wider unions, whose values describe themselves."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        options = [option for option in typing.get_args(hint) if option is not type(None)]
        return options[0] if len(options) == 1 else Any
    return hint


def _item_hint(hint: Any, index: int) -> Any:
    if typing.get_origin(hint) is not tuple:
        return Any
    items = typing.get_args(hint)
    if len(items) == 2 and items[1] is Ellipsis:
        return items[0]
    return items[index] if index < len(items) else Any


def _inline(name: str, array: np.ndarray) -> dict[str, Any]:
    document: dict[str, Any] = {"dtype": str(array.dtype), "shape": list(array.shape)}
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        flat = array.ravel()
        places = {"nan": np.isnan(flat), "inf": flat == np.inf, "-inf": flat == -np.inf}
        values = array.astype(object)
        values[~np.isfinite(array)] = None
        document["values"] = values.tolist()
        document |= {mark: np.flatnonzero(where).tolist() for mark, where in places.items() if where.any()}
    else:
        document["values"] = array.tolist()
    return {"$array": document}


def _from_inline(document: dict[str, Any]) -> np.ndarray:
    inner = document["$array"]
    if np.dtype(inner["dtype"]) not in NUMERIC:
        raise ValueError(f"the dtype {inner['dtype']!r} is unknown")
    values = np.array(inner["values"], dtype=object).ravel()
    for mark in ("nan", "inf", "-inf"):
        values[inner.get(mark, [])] = float(mark)
    array: np.ndarray = cast("Any", values.astype(str(inner["dtype"]))).reshape(inner["shape"])
    return array


def _refuse_constant(constant: str) -> Any:
    raise ValueError(f"{constant} is not JSON")
