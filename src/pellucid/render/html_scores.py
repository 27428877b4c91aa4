"""Views of `Scores` by their axes: coloured text, grid, curve, list, and panels of grids."""

from __future__ import annotations

import contextlib
from dataclasses import replace

import numpy as np

from pellucid.core.results import Scores
from pellucid.render.colours import has_negative, largest
from pellucid.render.html_curves import curves
from pellucid.render.html_parts import escape, folded, legend, quiet, shade, wide
from pellucid.render.words import (
    MISSING,
    exact,
    method_name,
    names,
    number_format,
    right_to_left,
    segments,
    strongest,
    visible,
    words_at,
)

TEXT_AXES = ("unit", "position", "other_unit", "query", "key")
CURVE_AXES = ("fraction", "step")
MOST_ROWS = 6000
MOST_CELLS = 20_000
MOST_NUMBERED_CELLS = 1500
MOST_PANEL_CELLS = 12_000
OPEN_ROWS = 40
OPEN_PANELS = 4


def scores(result: Scores) -> str:
    """Return the view that fits the axes."""
    values = np.asarray(result.values, dtype=np.float64)
    about = quiet(f"What was explained: {result.target}") if result.target else ""
    if values.size == 0:
        return about + quiet(f"There are no values (axes {', '.join(result.axes)}, shape {values.shape}).")
    if values.ndim == 0:
        return about + f'<p class="single">{exact(float(values))} {escape(result.unit)}</p>\n'
    if values.ndim == 1 and result.axes[0] in TEXT_AXES:
        return about + token_text(result) + _list(result)
    if values.ndim == 1 and result.axes[0] in CURVE_AXES:
        return about + _curve(result) + _list(result)
    if values.ndim == 1:
        return about + _legend(result) + _list(result)
    return about + (grid(result) if values.ndim == 2 else _panels(result))


def token_text(result: Scores) -> str:
    """Return the prompt with each unit on its colour, its value as a hint, and the printed scale."""
    scale = largest(result.values)
    parts = []
    pieces = segments(result, result.axes[0])
    for text, index, special in pieces:
        shown = escape_flow(text)
        tag = "bdi" if special else "span"  # a special token must not set the direction of the paragraph
        if index is None:
            parts.append(f"<{tag} class=s>{shown}</{tag}>" if text.strip() else shown)
        else:
            value = float(result.values[index])
            hint = exact(value) + _error(result, (index,))
            parts.append(f'<{tag}{shade(value, scale)} title="{hint}">{shown or MISSING}</{tag}>')
    kind = "tokens rtl" if any(right_to_left(text) for text, _, _ in pieces) else "tokens"
    return f'<div class="{kind}" dir="auto">{"".join(parts)}</div>\n{_legend(result)}'


def escape_flow(text: str) -> str:
    """Return a piece of running text: a line break is a sign and a break; direction is left to the paragraph."""
    return attribute_free(visible(text, breaks=True))


def attribute_free(text: str) -> str:
    """Escape markup in text that is already visible."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def grid(result: Scores, heading: str = "", scale: float | None = None) -> str:
    """Return two axes as a grid with headers that stay in sight; a very large one is cut to its strongest lines."""
    values, note = np.asarray(result.values, dtype=np.float64), ""
    end = largest(values) if scale is None else scale
    chosen = [list(range(size)) for size in values.shape]
    if values.size > MOST_CELLS:
        side = int(MOST_CELLS**0.5)
        keep = [min(values.shape[0], max(side, MOST_CELLS // values.shape[1])), 0]
        keep[1] = min(values.shape[1], MOST_CELLS // keep[0])
        strength = np.nan_to_num(np.abs(values), nan=0.0)
        chosen = [strongest(strength.max(axis=1 - axis), keep[axis]) for axis in (0, 1)]
        note = quiet(
            f"The {len(chosen[0])} rows and {len(chosen[1])} columns with the largest values, in order, "
            f"of {values.shape[0]} and {values.shape[1]}."
        )
    inner = _grid_rows(result, values, chosen, end, heading)
    about = f"{method_name(result.axes[0])} by {result.axes[1].replace('_', ' ')}"
    printed = "" if scale is not None else _legend(result)
    return note + wide(inner, heading or about, tall=len(chosen[0]) > 24, broad=True) + printed


def _grid_rows(result: Scores, values: np.ndarray, chosen: list[list[int]], end: float, heading: str) -> str:
    rows, columns = (names(result, axis) for axis in result.axes)
    numbered = len(chosen[0]) * len(chosen[1]) <= MOST_NUMBERED_CELLS
    write = number_format(end, digits=3 if end >= 1 else 2, sign=has_negative(result.values))
    corner = f"{result.axes[0].replace('_', ' ')} \\ {result.axes[1].replace('_', ' ')}"
    head = "".join(f"<th scope=col><span>{escape(columns[j])}</span></th>" for j in chosen[1])
    lines = [f"<tr><th>{escape(corner)}</th>{head}</tr></thead>\n<tbody>"]
    for i in chosen[0]:
        cells = []
        for j in chosen[1]:
            hint = exact(values[i, j]) + _error(result, (i, j))
            inside = write(values[i, j]) if numbered else ""
            if result.words is not None:
                word = escape(result.words[i * values.shape[1] + j])
                hint, inside = f"{word} {hint}", f"<bdi>{word}</bdi>" if numbered else ""
            cells.append(f'<td{shade(values[i, j], end)} title="{hint}">{inside}</td>')
        lines.append(f"<tr><th scope=row>{escape(rows[i])}</th>{''.join(cells)}</tr>\n")
    long = max((len(columns[j]) for j in chosen[1]), default=0) > 6 and len(chosen[1]) > 8
    kind = "grid" + ("" if numbered else " small") + (" upright" if long or not numbered else "")
    caption = f'<caption class="unseen">{escape(heading)}</caption>' if heading else ""
    return f'<table class="{kind}">{caption}<thead>{"".join(lines)}</tbody></table>\n'


def _panels(result: Scores) -> str:
    """Return three or more axes as grids of the last two, strongest panels first in order, on one scale."""
    values = np.asarray(result.values, dtype=np.float64)
    leading = list(np.ndindex(values.shape[:-2]))
    count = max(1, min(len(leading), MOST_PANEL_CELLS // max(1, values.shape[-1] * values.shape[-2])))
    peaks = np.array([largest(values[index]) for index in leading])
    shown, opened = strongest(peaks, count), strongest(peaks, OPEN_PANELS)
    lead = [names(result, axis) for axis in result.axes[:-2]]
    scale = largest(values)
    parts = []
    for place in shown:
        index = leading[place]
        heading = ", ".join(
            f"{a.replace('_', ' ')} {lead[n][i]}" for n, (a, i) in enumerate(zip(result.axes[:-2], index, strict=True))
        )
        error = None if result.std_error is None else result.std_error[index]
        words = words_at(result, index)
        panel = replace(result, values=values[index], axes=result.axes[-2:], std_error=error, words=words)
        peak = f"{heading} · largest |value| {exact(float(peaks[place])).lstrip('+')}"
        parts.append(folded(peak, grid(panel, heading, scale), opened=place in opened))
    rest = len(leading) - len(shown)
    note = (
        quiet(f"The {len(shown)} panels with the largest values are shown; {rest} more are in the saved result.")
        if rest
        else ""
    )
    return _legend(result) + note + f'<div class="panels">\n{"".join(parts)}</div>\n'


def _list(result: Scores) -> str:
    """Return every value of one axis in a table; the strongest ones of a very long axis."""
    axis, values = result.axes[0], np.asarray(result.values, dtype=np.float64)
    scale = largest(values)
    write, write_error = number_format(scale, sign=has_negative(values)), number_format(scale, sign=False)
    error = result.std_error
    labels, shown = names(result, axis), strongest(values, MOST_ROWS)
    lines = []
    for i in shown:
        spread = "" if error is None else f"<td>± {write_error(float(error[i]))}</td>"
        spread += f"<td><bdi>{escape(result.words[i])}</bdi></td>" if result.words else ""
        lines.append(
            f"<tr><td>{i}</td><th scope=row>{escape(labels[i])}</th>"
            f"<td{shade(values[i], scale)}>{write(values[i])}</td>{spread}</tr>\n"
        )
    head = (
        f"<th scope=col>#</th><th scope=col>{escape(axis)}</th><th scope=col>{escape(result.unit or 'value')}</th>"
        + ("" if error is None else "<th scope=col>std. error</th>")
        + ("<th scope=col>word</th>" if result.words else "")
    )
    inner = f'<table class="values"><thead><tr>{head}</tr></thead><tbody>\n{"".join(lines)}</tbody></table>\n'
    summary = (
        f"{len(shown)} values" if len(shown) == values.size else f"The {len(shown)} strongest of {values.size} values"
    )
    return folded(
        summary,
        wide(inner, summary, tall=len(shown) > OPEN_ROWS),
        opened=len(shown) <= OPEN_ROWS and axis not in TEXT_AXES,
    )


def _curve(result: Scores) -> str:
    axis = result.axes[0]
    points = np.arange(result.values.size, dtype=np.float64)
    labels = result.labels.get(axis, ())
    if labels:
        with contextlib.suppress(ValueError):  # names that are no numbers keep their order
            points = np.array([float(text) for text in labels])
    name = result.unit or "value"
    series = {"x": tuple(points), name: tuple(result.values)}
    if result.std_error is not None:
        series |= {
            f"{name}_low": tuple(result.values - result.std_error),
            f"{name}_high": tuple(result.values + result.std_error),
        }
    return curves(series, axis, x_name=axis)


def _legend(result: Scores) -> str:
    scale = largest(result.values)
    both = has_negative(result.values)
    return legend(scale, number_format(scale, sign=both), result.unit, result.sign, both=both)


def _error(result: Scores, index: tuple[int, ...]) -> str:
    return "" if result.std_error is None else f" ± {exact(float(result.std_error[index])).lstrip('+')}"
