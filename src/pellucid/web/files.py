"""Results as files to keep, and as the lines of Python that compute them again; no browser ever names a path."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from typing import Any

from pellucid.core import encoding
from pellucid.core.errors import InputError
from pellucid.core.results import Explanation, Graph, Result, Scores, Table

TYPES = {
    "json": "application/json",
    "csv": "text/csv; charset=utf-8",
    "svg": "image/svg+xml",
    "png": "image/png",
    "html": "text/html; charset=utf-8",
}
FORMULA = ("=", "+", "-", "@", "\t", "\r")


def written(result: Result, format: str) -> bytes:
    """Return a result as a file.

    Args:
        result: the result.
        format: "json" (everything, to be uploaded again), "csv" (its table), "svg" and "png" (a figure), "html".

    Raises:
        InputError: a kind without a table was asked for as CSV.
        MissingExtra: figures need the extra `plot`.
    """
    if format == "json":
        return encoding.as_json(result).encode("ascii")
    if format == "html":
        return result.html().encode("utf-8", "replace")
    if format == "csv":
        return _csv(result)
    picture = io.BytesIO()
    result.figure().savefig(picture, format=format)
    return picture.getvalue()


def _csv(result: Result) -> bytes:
    if isinstance(result, Scores | Table | Explanation):
        frame = result.to_pandas()
        header, rows = [str(name) for name in frame.columns], frame.itertuples(index=False)
    elif isinstance(result, Graph):
        names = [str(node.get("id", i)) for i, node in enumerate(result.nodes)]
        header = ["source", "target", "weight"]
        edges = zip(result.sources, result.targets, result.weights, strict=True)
        rows = ((names[s], names[t], float(w)) for s, t, w in edges)
    else:
        raise InputError(f"A {type(result).__name__} has no table; take json.")
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(header)
    writer.writerows([_cell(value) for value in row] for row in rows)
    return out.getvalue().encode("utf-8", "replace")


def _cell(value: Any) -> Any:
    """Return a text so that no program of sheets takes it for a formula; numbers as they are."""
    return f"'{value}" if isinstance(value, str) and value.startswith(FORMULA) else value


def python(result: Result, config: Mapping[str, Any], source: str) -> str:
    """Return the lines of Python that compute a result again.

    Args:
        result: the result, for what the request left to the defaults.
        config: the configuration of its run: the request under `parameters`, where a job made it.
        source: what `pellucid.load` is given.
    """
    request: Mapping[str, Any] = config.get("parameters") if isinstance(config.get("parameters"), dict) else {}
    method = request.get("method") or result.provenance.method
    lines = ["import pellucid", "", f"subject = pellucid.load({source!r})"]
    if any("from" in edit for edit in request.get("edits", [])):
        lines.insert(1, "from pellucid.engine.capture import capture")
    if any(isinstance(edit.get("value"), list) for edit in request.get("edits", [])):
        lines.insert(1, "import torch")
    lines += [f"subject = subject.with_({_edit(edit)})" for edit in request.get("edits", [])]
    given = [_given(request, result)]
    call = "pellucid.explain(subject" if method == "explain" else f'pellucid.run("{method}", subject'
    given += [f"{key}={_value(request[key])}" for key in ("target", "contrast", "budget") if key in request]
    given += [f"preset={request['preset']!r}"] if request.get("preset") else []
    parameters = request.get("parameters", {}) if request else dict(result.provenance.parameters)
    given += [f"{key}={_value(value)}" for key, value in parameters.items()]
    lines.append(f"result = {', '.join([call, *filter(None, given)])})")
    return "\n".join([*lines, "result.show()", ""])


def _given(request: Mapping[str, Any], result: Result) -> str:
    if "pair" in request:
        return _value(request["pair"])
    for key in ("prompt", "input"):
        if key in request:
            return repr(request[key])
    tokens = result.tokens if isinstance(result, Scores | Explanation | Graph) else None
    return repr(tokens.text) if tokens is not None and not request else ""


def _value(value: Any) -> str:
    """Return a value of a request as Python: a saved result, a pair and a target by their constructors."""
    if not isinstance(value, dict):
        return repr(value)
    if "result" in value and set(value) <= {"result", "part"}:
        part = f".results[{value['part']}]" if value.get("part") is not None else ""
        return f'pellucid.open("result-{value["result"]}"){part}'
    name = "pellucid.Pair" if {"clean", "corrupt"} <= set(value) else "pellucid.Target" if "what" in value else "dict"
    return f"{name}({', '.join(f'{key}={inner!r}' for key, inner in value.items())})"


def _edit(edit: Mapping[str, Any]) -> str:
    given = [repr(edit["site"]), repr(edit["how"])]
    if "from" in edit:
        given.append(f"capture(subject, {edit['from']['prompt']!r}, [{edit['site']!r}])[{edit['site']!r}]")
    elif isinstance(edit.get("value"), list):
        given.append(f"torch.tensor({edit['value']!r})")
    elif "value" in edit:
        given.append(repr(edit["value"]))
    given += [f"where={edit['where']!r}"] if edit.get("where") else []
    given += [f"phase={edit['phase']!r}"] if edit.get("phase", "all") != "all" else []
    return f"pellucid.Edit({', '.join(given)})"
