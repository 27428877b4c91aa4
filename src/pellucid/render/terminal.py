"""A result as text for the terminal, with colours where the terminal has them."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table as Grid
from rich.text import Text as Styled

from pellucid.core.errors import InputError
from pellucid.core.results import Evidence, Explanation, Result, Scores
from pellucid.render import terminal_kinds
from pellucid.render.terminal_parts import bar, quiet, sparkline, styled
from pellucid.render.terminal_scores import scores
from pellucid.render.words import (
    cost_line,
    evidence_mark,
    four_digits,
    isolated,
    label,
    method_name,
    number_format,
    percent,
    prose,
    title,
)

VIEWS: dict[str, Callable[[Any], RenderableType]] = {
    "Scores": scores,
    "Graph": terminal_kinds.graph,
    "Table": terminal_kinds.rows,
    "Text": terminal_kinds.text,
    "Examples": terminal_kinds.examples,
    "Learned": terminal_kinds.learned,
    "WeightEdit": terminal_kinds.weight_edit,
}
NARROWEST, USUAL = 30, 100
LISTED_IN_PART = 12


def show(result: Result) -> None:
    """Print a result to standard output; colours only on a terminal, and never a character that it would obey."""
    written = text(result)
    encoding = sys.stdout.encoding or "utf-8"
    sys.stdout.write(written.encode(encoding, "replace").decode(encoding))
    sys.stdout.flush()


def text(result: Result, *, width: int | None = None, colour: bool | None = None) -> str:
    """Return a result as lines of text, at most `width` columns wide.

    Args:
        result: any kind of result.
        width: columns; by default those of the terminal, or 100 where there is none.
        colour: whether to colour with escape sequences; by default only on a terminal without NO_COLOR.

    Raises:
        InputError: if the value is no kind of result.
    """
    terminal = sys.stdout.isatty()
    if colour is None:
        colour = terminal and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    if width is None:
        width = _columns() if terminal else USUAL
    buffer = io.StringIO()
    console = Console(
        file=buffer,
        width=max(width, NARROWEST),
        force_terminal=colour,
        color_system="truecolor" if colour else None,
        no_color=not colour,
        markup=False,
        highlight=False,
        emoji=False,
        legacy_windows=False,
    )
    console.print(Styled(title(result), style="bold"))
    if not isinstance(result, Explanation) and cost_line(result.provenance):
        console.print(quiet(cost_line(result.provenance)))
    console.print(_body(result))
    return "\n".join(line.rstrip() for line in buffer.getvalue().split("\n")) if not colour else buffer.getvalue()


def _columns() -> int:
    try:
        return os.get_terminal_size(sys.stdout.fileno()).columns
    except (OSError, ValueError):
        return USUAL


def _body(result: Result) -> RenderableType:
    if isinstance(result, Explanation):
        return _explanation(result)
    kind = type(result).__name__
    if kind not in VIEWS:
        raise InputError(
            f"Showing was asked for a {kind}, which is no kind of result; use one of {[*VIEWS, 'Explanation']}."
        )
    return Group(VIEWS[kind](result), *map(_check, result.evidence))


def _explanation(result: Explanation) -> RenderableType:
    parts: list[RenderableType] = []
    if result.target:
        parts.append(Styled.assemble(("explained: ", "dim"), isolated(label(result.target, 200))))
    if result.predictions:
        parts += [Styled("\nThe model predicts", style="bold"), _predictions(result.predictions)]
    if result.continuation:
        parts += [quiet("The model continued"), Padding(styled(prose(result.continuation)), (0, 0, 0, 2))]
    for inner in result.results:
        name = method_name(inner.provenance.method) if inner.provenance.method else title(inner)
        parts += [
            Styled(f"\n{name}", style="bold"),
            quiet(cost_line(inner.provenance, short=True)),
            _part(inner, result.target),
        ]
    if result.evidence:
        parts.append(Styled("\nEvidence", style="bold"))
        parts += map(_check, result.evidence)
    if result.notes:
        parts.append(Styled(""))
        parts += [quiet(f"- {note}") for note in result.notes]
    parts.append(quiet(cost_line(result.provenance)))
    return Group(*parts)


def _part(result: Result, known_target: str) -> RenderableType:
    """Return one of several results: without the target that was said above, and with a shorter list."""
    if not isinstance(result, Scores):
        return _body(result)
    shown = replace(result, target="") if result.target == known_target else result
    return Group(scores(shown, listed=LISTED_IN_PART), *map(_check, result.evidence))


def _predictions(predictions: tuple[tuple[str, float], ...]) -> Grid:
    grid = Grid.grid(padding=(0, 2, 0, 0))
    grid.add_column(max_width=24, no_wrap=True, overflow="ellipsis")
    grid.add_column(justify="right", no_wrap=True)
    grid.add_column(no_wrap=True)
    for token, share in predictions:
        grid.add_row(styled(isolated(label(token, 24))), percent(share), bar(share, 28))
    return grid


def _check(check: Evidence) -> RenderableType:
    """Return a check as one sentence with its verdict, its numbers, and its curves as small lines."""
    mark = evidence_mark(check)
    line = Styled()
    if mark:
        line.append(mark + "  ", style="green" if check.ok else "yellow")
    line.append(method_name(check.name), style="bold")
    line.append(": " + prose(check.summary))
    parts: list[RenderableType] = [line]
    if check.values:
        parts.append(
            quiet("  " + " · ".join(f"{label(k.replace('_', ' '))} {four_digits(v)}" for k, v in check.values.items()))
        )
    lines = {k: v for k, v in check.curves.items() if k != "x" and not k.endswith(("_low", "_high"))}
    finite = [v for values in lines.values() for v in values if v == v and abs(v) != float("inf")]
    if finite:
        grid = Grid.grid(padding=(0, 2, 0, 0))
        write = number_format(max(map(abs, finite)), digits=3, sign=False)
        for name, values in lines.items():
            ends = f"{write(values[0])} to {write(values[-1])}" if values else ""
            grid.add_row(quiet(label(name.replace("_", " "))), sparkline(values, min(finite), max(finite)), quiet(ends))
        parts.append(Padding(grid, (0, 0, 0, 2)))
    return Group(*parts)
