"""What an issue must show, run and measured: `make show ISSUE=house`.

Each issue has one file here, `scripts/show/<issue>.py`; there is no list of them. A long one names further files, which
begin with an underscore, in its `PARTS`. A function under `@line` is one line of the issue: it is given a folder for
what it writes, measures, and returns a `Shown`. One that raises is short.
"""

from __future__ import annotations

import importlib
import os
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parent.parent.parent
FOLDER = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Shown:
    """What a line measured: the figure in words, whether it meets the bar, and pictures to be looked at."""

    figure: str
    ok: bool
    pictures: tuple[Path, ...] = ()


@dataclass(frozen=True)
class Line:
    """One line of an issue's "Must show": its words, its bar and the function that measures."""

    text: str
    bar: str
    measure: Callable[[Path], Shown]


def line(text: str, *, bar: str) -> Callable[[Callable[[Path], Shown]], Callable[[Path], Shown]]:
    """Mark a function as the measurement of one line."""

    def mark(function: Callable[[Path], Shown]) -> Callable[[Path], Shown]:
        function.__dict__["line"] = Line(text, bar, function)
        return function

    return mark


def issues() -> list[str]:
    """Return the issues that have a file here."""
    return sorted(path.stem.replace("_", "-") for path in FOLDER.glob("[!_]*.py"))


def load(issue: str) -> ModuleType:
    """Import the file of an issue."""
    return importlib.import_module(f"{__name__}.{issue.replace('-', '_')}")


def lines_of(module: ModuleType) -> list[Line]:
    """Return the lines of a module in the order in which they stand there, then those of the modules in its `PARTS`."""
    own = [
        vars(value)["line"]
        for value in vars(module).values()
        if callable(value) and "line" in getattr(value, "__dict__", ())
    ]
    return own + [item for part in vars(module).get("PARTS", ()) for item in lines_of(part)]


def measure(item: Line, out: Path) -> tuple[Shown, float]:
    """Run one line; whatever it raises makes it short, with the error as its figure."""
    start = time.perf_counter()
    try:
        shown = item.measure(out)
    except Exception as error:
        if os.environ.get("SHOW_TRACEBACKS"):
            traceback.print_exc()
        shown = Shown(f"{type(error).__name__}: {error}"[:300], False)
    return shown, time.perf_counter() - start


def run(lines: list[Line], out: Path, console: Console | None = None) -> int:
    """Measure lines, print the table, and return the number that are short."""
    console = console or Console(width=None if os.isatty(1) else 160)
    out.mkdir(parents=True, exist_ok=True)
    table = Table("line", "figure", "bar", "ok or short", show_lines=True)
    short, pictures = 0, []
    for item in lines:
        shown, seconds = measure(item, out)
        print(f"{'ok' if shown.ok else 'short':5} {seconds:6.1f} s  {item.text}", file=sys.stderr, flush=True)
        short += not shown.ok
        pictures += [(item.text, picture) for picture in shown.pictures if picture.exists()]
        verdict = "[green]ok[/]" if shown.ok else "[red]short[/]"
        table.add_row(_plain(item.text), _plain(f"{shown.figure} ({seconds:.1f} s)"), _plain(item.bar), verdict)
    console.print(table)
    for text, picture in pictures:
        console.print(f"look at: {_plain(str(picture))}  ({_plain(text)})", soft_wrap=True)
    console.print(f"{len(lines) - short} of {len(lines)} lines are ok, {short} short.")
    return short


def _plain(text: str) -> str:
    return text.replace("[", "\\[")
