"""Views of tables, texts, examples and learned or edited tensors."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from pellucid.core.results import Examples, Learned, Table, Text, WeightEdit
from pellucid.render.colours import has_negative, largest
from pellucid.render.html_parts import escape, legend, paragraphs, quiet, shade, table, wide
from pellucid.render.words import exact, label, number_format, plain

MOST_ROWS = 2000


def rows(result: Table) -> str:
    """Return a table as it is; the first rows of a very long one."""
    shown = result.rows[:MOST_ROWS]
    note = quiet(f"The first {len(shown)} of {len(result.rows)} rows.") if len(shown) < len(result.rows) else ""
    head = "".join(f"<th scope=col>{escape(column)}</th>" for column in result.columns)
    lines = ["<tr>" + "".join(_cell(value) for value in row) + "</tr>\n" for row in shown]
    inner = f"<table><thead><tr>{head}</tr></thead><tbody>\n{''.join(lines)}</tbody></table>\n"
    return (
        note + wide(inner, result.title or "Table", tall=len(shown) > 60)
        if result.columns
        else quiet("The table has no columns.")
    )


def text(result: Text) -> str:
    """Return the words with their own line breaks."""
    return paragraphs(result.text) if result.text else quiet("The text is empty.")


def examples(result: Examples) -> str:
    """Return the items in their order, each with its value and all its fields."""
    shown = result.items[:MOST_ROWS]
    values = np.asarray(result.values, dtype=np.float64)
    fields = list(dict.fromkeys(key for item in shown for key in item))
    scale = largest(values)
    write = number_format(scale)
    lines = []
    for i, item in enumerate(shown):
        value = (
            f'<td{shade(values[i], scale)} title="{exact(values[i])}">{write(values[i])}</td>'
            if i < values.size
            else "<td></td>"
        )
        cells = "".join(f'<td class="text" dir="auto">{escape(plain(item.get(field)))}</td>' for field in fields)
        lines.append(f"<tr><th scope=row>{i + 1}</th>{value}{cells}</tr>\n")
    head = "".join(f"<th scope=col>{escape(f)}</th>" for f in ("#", result.unit or "value", *fields))
    inner = f'<table class="examples"><thead><tr>{head}</tr></thead><tbody>\n{"".join(lines)}</tbody></table>\n'
    note = quiet(f"The first {len(shown)} of {len(result.items)} items.") if len(shown) < len(result.items) else ""
    both = has_negative(values)
    return (
        note
        + wide(inner, "Examples", tall=len(shown) > 30)
        + (legend(scale, number_format(scale, sign=both), result.unit, "", both=both) if scale else "")
    )


def learned(result: Learned) -> str:
    """Return what was learned: what applies it, where, and each tensor's shape and size."""
    about = quiet(" · ".join(f"{k}: {v}" for k, v in (("applied by", result.apply), ("at", result.site)) if v))
    settings = table(
        ["setting", "value"], [[label(k), plain(v)] for k, v in result.settings.items()], caption="Settings"
    )
    return about + _tensors(result.tensors) + (settings if result.settings else "")


def weight_edit(result: WeightEdit) -> str:
    """Return which parameters change and by how much."""
    about = quiet(f"For the model with the weights {result.weights_hash}") if result.weights_hash else ""
    return about + _tensors({name: result.delta(name) for name in result.names})


def _tensors(tensors: Mapping[str, np.ndarray]) -> str:
    if not tensors:
        return quiet("There are no tensors.")
    lines = []
    for key, value in tensors.items():
        wide_value = np.asarray(value, dtype=np.float64)
        lines.append(
            [
                label(key, 120),
                " × ".join(map(str, value.shape)) or "scalar",
                str(value.dtype),
                f"{np.linalg.norm(wide_value):.6g}",
                f"{largest(wide_value):.6g}",
            ]
        )
    return table(["tensor", "shape", "type", "norm", "largest |value|"], lines, caption="Tensors")


def _cell(value: object) -> str:
    number = isinstance(value, int | float | np.number) and not isinstance(value, bool)
    return f"<td>{escape(plain(value))}</td>" if number else f'<td class="text" dir="auto">{escape(plain(value))}</td>'
