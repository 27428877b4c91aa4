"""Results as an assistant reads them: a short text, and the strongest entries as plain JSON values."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from pydantic import BaseModel, Field

from pellucid.core.axes import AXES
from pellucid.core.jsonable import parameter
from pellucid.core.results import Examples, Explanation, Graph, Learned, Result, Scores, Table, Text, WeightEdit
from pellucid.render.words import evidence_mark, four_digits, label, names, prose, title, visible

LONGEST = 4000


class Answer(BaseModel, extra="allow"):
    """A result in brief; further fields depend on its kind, the whole result is in the store under `run`."""

    run: int | None = Field(description="The number that open_run opens.")
    kind: str
    title: str
    method: str
    model: str
    text: str = Field(description="The answer in words.")
    evidence: list[dict[str, Any]] = Field(description="Checks of the explanation: name, summary, ok.")


def answer(result: Result, run: int | None, most: int) -> Answer:
    """Return a result in brief.

    Args:
        result: any kind.
        run: its number in the store.
        most: how many entries are listed at most, the strongest first.
    """
    fields = VIEWS[type(result).__name__](result, most)
    said = fields.pop("said")
    model = result.provenance.model
    head = title(result) + (f" ({visible(model)})" if model else "")
    evidence = [{"name": e.name, "summary": e.summary, "ok": e.ok} for e in result.evidence]
    checks = [" ".join(filter(None, (evidence_mark(e), visible(e.summary)))) for e in result.evidence]
    where = [f"Saved as run {run}."] if run is not None else []
    text = "\n".join([head, *said, *checks, *where])
    shared = {
        "run": run, "kind": type(result).__name__, "title": title(result), "method": result.provenance.method,
        "model": model, "text": text if len(text) <= LONGEST else text[: LONGEST - 1] + "…", "evidence": evidence,
    }  # fmt: skip
    return Answer(**_carried({**shared, **fields}))


def _carried(value: Any) -> Any:
    """Return JSON values that UTF-8 carries: no halves of surrogate pairs, no NaN."""
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, dict):
        return {_carried(str(key)): _carried(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_carried(item) for item in value]
    return value if not isinstance(value, float) or math.isfinite(value) else None


def _scores(result: Scores, most: int) -> dict[str, Any]:
    called = {axis: names(result, axis) for axis in result.axes}
    size = np.nan_to_num(np.abs(result.values.astype(np.float64)).ravel(), nan=-1.0)
    order = np.argsort(-size, kind="stable")[:most]
    entries: list[dict[str, Any]] = []
    said: list[str] = []
    for flat in order:
        index = np.unravel_index(int(flat), result.values.shape)
        where = {axis: int(i) for axis, i in zip(result.axes, index, strict=True)}
        name = {axis: called[axis][i] for axis, i in where.items()}
        entry: dict[str, Any] = {"at": where, "name": name, "value": _number(result.values[index])}
        if result.std_error is not None:
            entry["std_error"] = _number(result.std_error[index])
        if result.words is not None:
            entry["word"] = result.words[int(flat)]
        entries.append(entry)
        places = ", ".join(
            f"{axis} {i}" + (f" {name[axis]!r}" if name[axis] != str(i) else "") for axis, i in where.items()
        )
        word = f" {label(result.words[int(flat)])!r}" if result.words is not None else ""
        said.append(f"  {four_digits(float(result.values[index]))}  {places}{word}")
    explained = f"Target: {visible(result.target)}. " if result.target else ""
    head = f"{explained}Unit: {visible(result.unit) or 'none'}; {visible(result.sign)}."
    more = result.values.size - len(order)
    return {
        "target": result.target, "unit": result.unit, "sign": result.sign, "axes": list(result.axes),
        "axes_mean": {axis: AXES[axis] for axis in result.axes}, "shape": list(result.values.shape),
        "entries": entries, "entries_left_out": more,
        "said": [head, "Strongest first:", *said, *([f"  … and {more} more"] if more else [])],
    }  # fmt: skip


def _graph(result: Graph, most: int) -> dict[str, Any]:
    ids = [str(node.get("id")) for node in result.nodes]
    order = np.argsort(-np.abs(np.nan_to_num(result.weights)), kind="stable")[:most]
    edges = [
        {"from": ids[result.sources[e]], "to": ids[result.targets[e]], "weight": _number(result.weights[e])}
        for e in order
    ]
    said = [f"  {edge['weight']}  {label(edge['from'])} -> {label(edge['to'])}" for edge in edges]
    count = f"{len(ids)} nodes, {len(result.weights)} edges; unit: {visible(result.unit) or 'none'}. Heaviest edges:"
    return {
        "nodes": len(ids), "edges": edges, "edges_left_out": len(result.weights) - len(edges), "unit": result.unit,
        "said": [count, *said],
    }  # fmt: skip


def _table(result: Table, most: int) -> dict[str, Any]:
    rows = [[parameter(value) for value in row] for row in result.rows[:most]]
    lines = ["  " + " | ".join(label(value) for value in row) for row in rows]
    said = ["  " + " | ".join(label(column) for column in result.columns), *lines]
    left_out = len(result.rows) - len(rows)
    return {"columns": list(result.columns), "rows": rows, "rows_left_out": left_out, "said": said}


def _text(result: Text, most: int) -> dict[str, Any]:
    return {"words": result.text, "said": [prose(result.text)]}


def _examples(result: Examples, most: int) -> dict[str, Any]:
    items = [{key: parameter(value) for key, value in item.items()} for item in result.items[:most]]
    values = [_number(value) for value in result.values[:most]]
    said = [f"  {value}  {label(item, 200)}" for value, item in zip(values, items, strict=False)]
    return {
        "items": items, "values": values, "unit": result.unit, "items_left_out": len(result.items) - len(items),
        "said": [f"{len(result.items)} examples; unit: {visible(result.unit) or 'none'}.", *said],
    }  # fmt: skip


def _learned(result: Learned, most: int) -> dict[str, Any]:
    shapes = {name: list(tensor.shape) for name, tensor in list(result.tensors.items())[:most]}
    settings = {key: parameter(value) for key, value in result.settings.items()}
    said = [
        f"Learned at {visible(result.site) or 'no site'}: " + ", ".join(f"{visible(k)} {v}" for k, v in shapes.items())
    ]
    return {"site": result.site, "apply": result.apply, "tensors": shapes, "settings": settings, "said": said}


def _weight_edit(result: WeightEdit, most: int) -> dict[str, Any]:
    changed = {
        name: {"shape": list(delta.shape), "norm": _number(np.linalg.norm(delta.astype(np.float64)))}
        for name, delta in list(result.deltas.items())[:most]
    }
    said = [f"  {visible(name)} {change['shape']}, norm {change['norm']}" for name, change in changed.items()]
    return {"deltas": changed, "said": [f"Changes {len(result.deltas)} weights:", *said]}


def _explanation(result: Explanation, most: int) -> dict[str, Any]:
    parts = [answer(part, None, most) for part in result.results]
    predictions = [{"text": text, "probability": _number(share)} for text, share in result.predictions]
    said = [f"Target: {visible(result.target)}."] if result.target else []
    if predictions:
        shares = [f"{label(text)!r} {share:.1%}" for text, share in result.predictions[:5]]
        said.append("The model predicts " + ", ".join(shares) + ".")
    if result.continuation:
        said.append(f"It goes on: {label(result.continuation, 300)!r}.")
    said += [visible(note) for note in result.notes]
    for part in parts:
        said += ["", part.text]
    return {
        "target": result.target, "predictions": predictions, "continuation": result.continuation,
        "notes": list(result.notes), "results": [part.model_dump(exclude={"text", "run"}) for part in parts],
        "said": said,
    }  # fmt: skip


def _number(value: Any) -> float | None:
    """Return a number that JSON has, of six digits; None for NaN and infinities."""
    number = float(value)
    return float(f"{number:.6g}") if math.isfinite(number) else None


VIEWS: dict[str, Callable[[Any, int], dict[str, Any]]] = {
    "Scores": _scores,
    "Graph": _graph,
    "Table": _table,
    "Text": _text,
    "Examples": _examples,
    "Learned": _learned,
    "WeightEdit": _weight_edit,
    "Explanation": _explanation,
}
