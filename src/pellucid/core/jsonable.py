"""Values as plain JSON: whole results for `--json`, and parameters in the short form that provenance keeps."""

from __future__ import annotations

import dataclasses
import hashlib
import math
from collections.abc import Mapping, Sequence, Set
from pathlib import Path
from typing import Any, cast

import numpy as np

from pellucid.core.params import Array
from pellucid.core.results import Result
from pellucid.core.saving import SCHEMA

INLINE = 64


def as_json(result: Result) -> dict[str, Any]:
    """Return a whole result as one JSON document: the fields of a saved `result.json`, with arrays as nested lists.

    NaN and infinities, which JSON lacks, become `null`. (`pellucid.core.encoding.as_json` keeps them apart and can be
    read back.)
    """
    return {"schema": SCHEMA, **_result(result)}


def _result(result: Result) -> dict[str, Any]:
    return {
        "kind": type(result).__name__,
        **{f.name: _plain(getattr(result, f.name)) for f in dataclasses.fields(result)},
    }


def parameter(value: Any) -> Any:
    """Return a parameter in JSON form: enough to run it again where it is small, and to tell two apart where it is not.

    Arrays of more than 64 entries become their shape, dtype and SHA-256; functions their qualified name; results and
    subjects their kind and name; Target and Edit their fields.
    """
    if isinstance(value, Result):
        return {"type": type(value).__name__, "method": value.provenance.method, "title": value.title}
    if isinstance(value, Array):
        array = _numpy(value)
        if array.size > INLINE:
            digest = hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()
            return {"shape": list(array.shape), "dtype": str(value.dtype), "sha256": digest}
        return _plain(array)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {f.name: parameter(getattr(value, f.name)) for f in dataclasses.fields(value)}
        return {"type": type(value).__name__, **fields}
    if isinstance(value, Mapping):
        return {str(key): parameter(item) for key, item in cast("Mapping[Any, Any]", value).items()}
    if isinstance(value, Sequence | Set) and not isinstance(value, str | bytes):
        return [parameter(item) for item in cast("Sequence[Any]", value)]
    return _plain(value)


def _numpy(value: Any) -> np.ndarray:
    """Return an array as NumPy; bfloat16 tensors, which NumPy lacks, are widened to float32."""
    if hasattr(value, "detach"):
        tensor = value.detach().cpu()
        value = (tensor.float() if "bfloat16" in str(tensor.dtype) else tensor).numpy()
    return np.asarray(value)


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, bool | str | int):
        return value if not isinstance(value, str) else value.encode("utf-8", "replace").decode("utf-8")
    if isinstance(value, np.generic):
        return _plain(value.item())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Result):
        return _result(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Array):
        return _plain(_numpy(value).tolist())
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in cast("Mapping[Any, Any]", value).items()}
    if isinstance(value, Sequence | Set) and not isinstance(value, str | bytes):
        return [_plain(item) for item in cast("Sequence[Any]", value)]
    if isinstance(value, Path):
        return str(value)
    return _name(value)


def _name(value: Any) -> str:
    """Return a name without memory addresses, so that two runs of the same call record the same text."""
    own = getattr(value, "__qualname__", None) or getattr(value, "name", None)
    return own if isinstance(own, str) and own else type(value).__qualname__
