"""A result as the JSON that views draw, and slices of its arrays as bytes."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from pellucid.core.errors import InputError
from pellucid.core.jsonable import as_json
from pellucid.core.results import Examples, Explanation, Graph, Learned, Result, Scores, WeightEdit

INLINE = 20_000  # entries; a larger array is asked for slice by slice
MISSING = 255
DTYPES = ("uint8", "float16", "float32")


class Slice(NamedTuple):
    """A part of an array as little-endian bytes: value = offset + scale * entry; 255 in uint8 means no number."""

    content: bytes
    shape: tuple[int, ...]
    dtype: str
    scale: float
    offset: float


def document(result: Result) -> dict[str, Any]:
    """Return the fields of a result as JSON: as `pellucid.core.jsonable.as_json`, large arrays left out and marked."""
    small, left_out = _without_large(result)
    found = as_json(small)
    _mark(found, left_out)
    return found


def _without_large(result: Result) -> tuple[Result, dict[Any, Any]]:
    """Return a result without its large arrays, and what stands for each: by field, key or number of a part."""
    if isinstance(result, Explanation):
        parts = [_without_large(part) for part in result.results]
        marks: dict[Any, Any] = {"results": {i: marks for i, (_, marks) in enumerate(parts) if marks}}
        return dataclasses.replace(result, results=tuple(part for part, _ in parts)), marks
    if isinstance(result, Scores):
        large = [
            name
            for name in ("values", "std_error")
            if (array := getattr(result, name)) is not None and array.size > INLINE
        ]
        marks = {name: _stand_in(getattr(result, name)) for name in large}
        if not large:
            return result, marks
        words = result.words
        if words is not None and "values" in large:
            marks["words"] = {"left_out": True, "shape": [len(words)], "dtype": "text", "min": None, "max": None}
        hollow = _Hollow(**{f.name: getattr(result, f.name) for f in dataclasses.fields(result) if f.name not in marks})
        return hollow, marks
    if isinstance(result, Learned):
        tensors, marks = _large(result.tensors)
        return dataclasses.replace(result, tensors=tensors), {"tensors": marks}
    if isinstance(result, WeightEdit):
        deltas, marks = _large(result.deltas)
        return dataclasses.replace(result, deltas=deltas), {"deltas": marks}
    return result, {}


class _Hollow(Scores):
    """Scores whose values stay on the server: the axes have nothing to fit."""

    def __post_init__(self) -> None:
        """Check nothing."""


_Hollow.__name__ = "Scores"


def _large(arrays: Mapping[str, np.ndarray]) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    small = {key: array for key, array in arrays.items() if array.size <= INLINE}
    return small, {key: _stand_in(array) for key, array in arrays.items() if key not in small}


def _mark(found: dict[str, Any], marks: Mapping[Any, Any]) -> None:
    for key, mark in marks.items():
        if key == "results":
            for index, inner in mark.items():
                _mark(found["results"][index], inner)
        elif key in ("tensors", "deltas"):
            found[key] |= mark
        else:
            found[key] = mark


def _stand_in(array: np.ndarray) -> dict[str, Any]:
    finite = array[np.isfinite(array)] if array.dtype.kind == "f" else array
    return {
        "left_out": True,
        "shape": list(array.shape),
        "dtype": str(array.dtype),
        "min": float(finite.min()) if finite.size else None,
        "max": float(finite.max()) if finite.size else None,
    }


def part_of(result: Result, part: int | None) -> Result:
    """Return a part of an explanation, or the result itself; raise `InputError` where there is no such part."""
    if part is None:
        return result
    parts = result.results if isinstance(result, Explanation) else ()
    if not 0 <= part < len(parts):
        raise InputError(f"Part {part} of the result was asked for, but it has {len(parts)}; leave 'part' out.")
    return parts[part]


def sliced(result: Result, field: str, at: str, dtype: str) -> Slice:
    """Return a slice of an array of a result as bytes.

    Args:
        result: the result, or a part of it.
        field: "values", "std_error", "weights", "sources", "targets", or the name of a tensor.
        at: fixed axes such as "layer:3,head:5", or places such as "0:3" for a tensor without named axes.
        dtype: "uint8", "float16" or "float32"; entries are scaled to use its range.

    Raises:
        InputError: the field, an axis or an index does not exist.
    """
    array, axes = _array(result, field)
    index: list[Any] = [slice(None)] * array.ndim
    for word in filter(None, at.split(",")):
        name, _, number = word.partition(":")
        if name not in axes or not number.removeprefix("-").isdecimal() or len(number) > 9:
            raise InputError(
                f"The slice {word[:60]!r} is none of this array, whose axes are {list(axes)}; give axis:n."
            )
        place = axes.index(name)
        if not -array.shape[place] <= int(number) < array.shape[place]:
            raise InputError(f"The slice {word!r} is beyond the {array.shape[place]} entries of the axis {name!r}.")
        index[place] = int(number)
    return packed(np.asarray(array[tuple(index)]), dtype)


def _array(result: Result, field: str) -> tuple[np.ndarray, tuple[str, ...]]:
    arrays: dict[str, np.ndarray | None] = {}
    axes: tuple[str, ...] = ()
    if isinstance(result, Scores):
        arrays, axes = {"values": result.values, "std_error": result.std_error}, result.axes
    elif isinstance(result, Graph):
        arrays = {"weights": result.weights, "sources": result.sources, "targets": result.targets}
    elif isinstance(result, Examples):
        arrays = {"values": result.values}
    elif isinstance(result, Learned):
        arrays = dict(result.tensors)
    elif isinstance(result, WeightEdit):
        arrays = dict(result.deltas)
    found = arrays.get(field)
    if found is None:
        known = [name for name, array in arrays.items() if array is not None]
        raise InputError(f"The result has no array {field[:60]!r}; it has {known[:20]}.")
    return found, axes or tuple(str(i) for i in range(found.ndim))


def packed(array: np.ndarray, dtype: str) -> Slice:
    """Return an array as bytes of a small type: white of a diverging scale, zero, stays exactly zero."""
    values = np.asarray(array, dtype=np.float64)
    finite = values[np.isfinite(values)]
    largest = float(np.abs(finite).max()) if finite.size else 0.0
    if dtype == "float32":
        return Slice(values.astype("<f4").tobytes(), values.shape, dtype, 1.0, 0.0)
    if dtype == "float16":
        scale = largest or 1.0
        return Slice((values / scale).astype("<f2").tobytes(), values.shape, dtype, scale, 0.0)
    if dtype != "uint8":
        raise InputError(f"The type {dtype[:20]!r} is not offered; take one of {list(DTYPES)}.")
    signed = bool(finite.size) and float(finite.min()) < 0
    scale = largest / (127 if signed else 254) or 1.0
    zero = 127 if signed else 0
    codes = np.where(np.isfinite(values), np.rint(np.nan_to_num(values, posinf=0, neginf=0) / scale) + zero, MISSING)
    return Slice(codes.astype(np.uint8).tobytes(), values.shape, dtype, scale, -zero * scale)
