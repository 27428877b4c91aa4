"""`Scores` in the terminal, by their axes: coloured text, a list with bars, a grid, a curve."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, Group, RenderableType
from rich.padding import Padding
from rich.table import Table as Grid
from rich.text import Text as Styled

from pellucid.core.results import Scores
from pellucid.render.colours import LEVELS, has_negative, hexadecimal, largest
from pellucid.render.terminal_parts import palette, quiet, shade, sparkline, styled
from pellucid.render.words import (
    MISSING,
    isolated,
    label,
    names,
    number_format,
    right_to_left,
    segments,
    strongest,
    visible,
    words_at,
)

TEXT_AXES = ("unit", "position", "other_unit", "query", "key")
MOST_LISTED = 40
STRONGEST = 20
MOST_LINES = 40
HALF_BAR = 12
_BEFORE_ISOLATE, _AFTER_ISOLATE = "\u2068", "\u2069"


def scores(result: Scores, *, listed: int = MOST_LISTED) -> RenderableType:
    """Return the view that fits the axes; an axis longer than `listed` shows its strongest entries only."""
    values = np.asarray(result.values, dtype=np.float64)
    about = [quiet(f"explained: {result.target}")] if result.target else []
    if values.size == 0:
        return Group(*about, quiet("There are no values."))
    if values.ndim == 0:
        return Group(
            *about, styled(number_format(largest(values))(float(values)) + f" {label(result.unit or 'value')}")
        )
    if values.ndim == 1 and result.axes[0] in TEXT_AXES:
        return Group(*about, Padding(token_text(result), (1, 0)), scale_line(result), _list(result, listed))
    if values.ndim == 1:
        finite = values[np.isfinite(values)]
        line = sparkline(list(values), float(finite.min()), float(finite.max())) if finite.size > 2 else ""
        return Group(*about, *([styled(line)] if line else []), scale_line(result), _list(result, listed))
    if values.ndim == 2:
        return Group(*about, Fitted(result), scale_line(result))
    return Group(*about, *_panels(result), scale_line(result))


def token_text(result: Scores) -> Styled:
    """Return the prompt with each unit on its colour; runs of right-to-left text are isolated so that order is kept."""
    scale = largest(result.values)
    flow, inside = Styled(), False
    for text, index, _ in segments(result, result.axes[0]):
        shown = visible(text, breaks=True)
        if right_to_left(shown) != inside and (shown.strip() or inside):
            flow.append(_AFTER_ISOLATE if inside else _BEFORE_ISOLATE)
            inside = not inside
        if index is None:
            flow.append(shown, style="dim")
        else:
            flow.append(shown or MISSING, style=shade(float(result.values[index]), scale))
    return flow.append(_AFTER_ISOLATE) if inside else flow


def scale_line(result: Scores) -> Styled:
    """Return the printed scale: its ends, its unit and how to read the sign."""
    scale = largest(result.values)
    if scale == 0:
        return quiet(f"All values are zero{' (' + result.unit + ')' if result.unit else ''}.")
    both = has_negative(result.values)
    write = number_format(scale, sign=both)
    line = Styled(f"{write(-scale)} " if both else "0 ")
    for step in range(-LEVELS if both else 0, LEVELS + 1, 4 if both else 2):
        line.append(" ", style=shade(step / LEVELS, 1.0))
    line.append(f" {write(scale)}")
    words = " · ".join(visible(part) for part in (result.unit, result.sign) if part)
    return line.append(f"  {words}", style="dim")


class Fitted:
    """A grid that shows as many columns as the console has room for, because a cut number is a wrong one."""

    def __init__(self, result: Scores) -> None:
        self.result = result

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        yield grid(self.result, options.max_width)


def grid(result: Scores, width: int) -> RenderableType:
    """Return two axes as a grid; the strongest lines where not all fit, which is said."""
    values = np.asarray(result.values, dtype=np.float64)
    strength = np.nan_to_num(np.abs(values), nan=0.0)
    rows = strongest(strength.max(axis=1), MOST_LINES)
    row_names, column_names = (names(result, axis) for axis in result.axes)
    scale = largest(values)
    write = number_format(scale, digits=3 if scale >= 1 else 2, sign=has_negative(values))
    corner = result.axes[0].replace("_", " ")
    said = [_short(word) for word in result.words or ()]
    cell = 1 + max(cell_len(text) for text in (write(scale), write(-scale), *map(_short, column_names), *said))
    side = max(len(corner), min(24, max(cell_len(name) for name in row_names))) + 1
    columns = strongest(strength.max(axis=0), max(1, (width - side) // cell))
    table = Grid(box=None, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column(Styled(corner, style="dim"), no_wrap=True, max_width=24)
    for j in columns:
        table.add_column(styled(isolated(_short(column_names[j]))), justify="right", no_wrap=True, overflow="ellipsis")
    for i in rows:
        texts = [isolated(said[i * values.shape[1] + j]) if said else write(values[i, j]) for j in columns]
        cells = [styled(text, shade(values[i, j], scale)) for text, j in zip(texts, columns, strict=True)]
        table.add_row(styled(isolated(label(row_names[i], 24))), *cells)
    if len(rows) == values.shape[0] and len(columns) == values.shape[1]:
        return table
    note = f"{len(rows)} of {values.shape[0]} rows and {len(columns)} of {values.shape[1]} columns"
    return Group(table, quiet(f"{note}, those with the largest values"))


def _panels(result: Scores) -> list[RenderableType]:
    """Return the three strongest grids of the last two axes."""
    values = np.asarray(result.values, dtype=np.float64)
    leading = list(np.ndindex(values.shape[:-2]))
    parts: list[RenderableType] = []
    for place in strongest(np.array([largest(values[index]) for index in leading]), 3):
        index = leading[place]
        heading = ", ".join(f"{axis} {names(result, axis)[i]}" for axis, i in zip(result.axes[:-2], index, strict=True))
        panel = replace(
            result, values=values[index], axes=result.axes[-2:], std_error=None, words=words_at(result, index)
        )
        parts += [Styled(heading, style="bold"), Fitted(panel)]
    if len(leading) > 3:
        parts.append(quiet(f"3 of {len(leading)} panels, those with the largest values"))
    return parts


def _list(result: Scores, listed: int) -> RenderableType:
    """Return one line per entry with its number and a bar; the strongest ones of a long axis, strongest first."""
    axis, values = result.axes[0], np.asarray(result.values, dtype=np.float64)
    scale = largest(values)
    every = values.size <= listed
    shown = (
        list(range(values.size))
        if every
        else sorted(strongest(values, min(STRONGEST, listed)), key=lambda i: -abs(np.nan_to_num(values[i])))
    )
    entries, both = names(result, axis), has_negative(values)
    write, spread = number_format(scale, sign=both), number_format(scale, sign=False)
    table = Grid(box=None, padding=(0, 1, 0, 0), pad_edge=False, show_header=False)
    table.add_column(justify="right", style="dim", no_wrap=True)
    table.add_column(no_wrap=True, max_width=30, overflow="ellipsis")
    table.add_column(justify="right", no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True, max_width=30, overflow="ellipsis")
    for i in shown:
        error = "" if result.std_error is None else f" ± {spread(float(result.std_error[i]))}"
        table.add_row(
            str(i), styled(isolated(label(entries[i], 30))), f"{write(values[i])}{error}", _bar(values[i], scale, both),
            *([styled(isolated(label(result.words[i], 30)))] if result.words else []),
        )  # fmt: skip
    if every:
        return table
    return Group(quiet(f"The {len(shown)} strongest of {values.size}"), table)


def _bar(value: float, scale: float, both: bool) -> Styled:
    """Return a bar that grows to the right for positive and to the left for negative values."""
    strength = 0.0 if not scale or value != value else min(1.0, abs(value) / scale)
    cells = round(strength * HALF_BAR)
    solid = Styled("█" * cells, style=hexadecimal(palette().down if value < 0 else palette().up))
    if value < 0:
        return Styled.assemble(" " * (HALF_BAR - cells), solid, "│")
    return Styled.assemble(" " * HALF_BAR + "│" if both else "│", solid)


def _short(name: str) -> str:
    return label(name.strip() or name, 9)
