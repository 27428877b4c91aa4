"""Means with intervals per method, one panel per metric, as drawings (SVG) for pages and as one file."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from pellucid.render import colours
from pellucid.render.html_curves import ticks
from pellucid.render.html_parts import attribute, escape
from pellucid.render.words import label, number_format

ROW, TOP, BOTTOM, LEFT, WIDTH, RIGHT = 19, 26, 26, 168, 380, 12
COLUMNS = 3


@dataclass(frozen=True)
class Dot:
    """One mean with its interval; `good` where no test tells it from the best."""

    name: str
    mean: float
    low: float
    high: float
    good: bool = False


@dataclass(frozen=True)
class Panel:
    """One metric: its name, how to read it, a mean per method, and the chance level (NaN where there is none)."""

    name: str
    direction: str
    dots: tuple[Dot, ...]
    chance: float = math.nan


def panel(given: Panel) -> str:
    """Return one panel as an inline drawing."""
    height = _height(given)
    spoken = "; ".join(f"{dot.name} {dot.mean:.3g}" for dot in given.dots if math.isfinite(dot.mean))
    about = f"{given.name}, {given.direction} is better: {spoken}"
    return (
        f'<figure class="dots"><svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{attribute(about)}">\n'
        f"{_inner(given)}</svg></figure>\n"
    )


def drawing(panels: Sequence[Panel], title: str) -> str:
    """Return all panels as one SVG file that needs nothing else, light or dark as its reader."""
    rows = [panels[start : start + COLUMNS] for start in range(0, len(panels), COLUMNS)]
    parts, y = [], 8
    for row in rows:
        for column, one in enumerate(row):
            parts.append(f'<g transform="translate({column * WIDTH} {y})">\n{_inner(one)}</g>\n')
        y += max(map(_height, row)) + 14
    width = WIDTH * min(COLUMNS, max(1, len(panels)))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {y}" width="{width}" height="{y}" role="img" '
        f'aria-label="{attribute(title)}">\n<style>\n{_style(colours.LIGHT)}\n@media (prefers-color-scheme:dark){{'
        f'{_style(colours.DARK)}}}\ntext{{font:11px system-ui,"Segoe UI",Roboto,Arial,sans-serif}}\n'
        ".head{font-weight:600;font-size:12px}.end{text-anchor:end}.mid{text-anchor:middle}\n"
        f'</style>\n<rect class="paper" width="{width}" height="{y}"/>\n{"".join(parts)}</svg>\n'
    )


def rules() -> str:
    """Return the rules of the style sheet that panels on a page need."""
    return (
        ".dots{margin:0;flex:1 1 19rem;max-width:27rem}.dots svg{width:100%;height:auto;display:block}"
        ".dots .head{font-weight:600;font-size:12px;fill:var(--ink)}"
        ".dots text.good{fill:var(--ink);font:600 11px ui-sans-serif,system-ui,sans-serif}"
        ".dots .bar{stroke:var(--quiet);stroke-width:2}.dots .point{fill:var(--quiet)}"
        ".dots .bar.good{stroke:var(--up)}.dots .point.good{fill:var(--up)}"
        ".dots .chance{stroke:var(--down);stroke-dasharray:4 3;fill:none}"
    )


def _style(palette: colours.Palette) -> str:
    named = {name: colours.hexadecimal(rgb) for name, rgb in vars(palette).items()}
    return (
        f".paper{{fill:{named['paper']}}}text{{fill:{named['quiet']}}}.head,text.good{{fill:{named['ink']}}}"
        f".rule{{stroke:{named['rule']};fill:none}}.bar{{stroke:{named['quiet']};stroke-width:2}}"
        f".point{{fill:{named['quiet']}}}.bar.good{{stroke:{named['up']}}}.point.good{{fill:{named['up']}}}"
        f".chance{{stroke:{named['down']};stroke-dasharray:4 3;fill:none}}"
    )


def _height(given: Panel) -> int:
    return TOP + ROW * len(given.dots) + BOTTOM


def _inner(given: Panel) -> str:
    numbers = [x for dot in given.dots for x in (dot.low, dot.mean, dot.high)] + [given.chance]
    finite = [x for x in numbers if math.isfinite(x)] or [0.0]
    low, high = min(finite), max(finite)
    margin = 0.06 * (high - low) or abs(low) / 2 or 0.5
    low, high = low - margin, high + margin
    bottom = TOP + ROW * len(given.dots)

    def x(value: float) -> float:
        return LEFT + (value - low) / (high - low) * (WIDTH - LEFT - RIGHT)

    marks = [mark for mark in ticks([low, high], 4) if low <= mark <= high]
    write = number_format(max(map(abs, marks), default=1.0), digits=3, sign=False)
    arrow = "→ better" if given.direction == "higher" else "← better"
    parts = [f'<text class="head" x="6" y="15">{escape(given.name)}</text>'
             f'<text class="end" x="{WIDTH - RIGHT}" y="15">{arrow}</text>\n']  # fmt: skip
    for mark in marks:
        at = f"{x(mark):.1f}"
        parts.append(f'<path class="rule" d="M{at} {TOP}V{bottom}"/>')
        parts.append(f'<text class="mid" x="{at}" y="{bottom + 15}">{write(mark)}</text>\n')
    if math.isfinite(given.chance):
        parts.append(f'<path class="chance" d="M{x(given.chance):.1f} {TOP - 3}V{bottom}"/>\n')
    for place, dot in enumerate(given.dots):
        y, kind = TOP + ROW * place + ROW / 2, " good" if dot.good else ""
        parts.append(f'<text class="end{kind}" x="{LEFT - 8}" y="{y + 4:.1f}">{escape(label(dot.name, 27))}</text>')
        if math.isfinite(dot.mean):
            parts.append(f'<path class="bar{kind}" d="M{x(dot.low):.1f} {y}H{x(dot.high):.1f}"/>'
                         f'<circle class="point{kind}" cx="{x(dot.mean):.1f}" cy="{y}" r="3.6"/>')  # fmt: skip
        parts.append("\n")
    return "".join(parts)
