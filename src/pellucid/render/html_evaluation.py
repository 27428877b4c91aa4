"""An evaluation over a data set as one page: table, figure, tests, best and worst examples."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from pellucid.core.results import Scores
from pellucid.render.colours import largest
from pellucid.render.evaluation_dots import Panel, panel, rules
from pellucid.render.html import style
from pellucid.render.html_parts import escape, folded, quiet, shade, table, wide
from pellucid.render.html_scores import escape_flow
from pellucid.render.words import MISSING, exact, four_digits, method_name, right_to_left, segments

POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
LONGEST_TEXT = 220


@dataclass(frozen=True)
class Cell:
    """A mean with its interval and its gap to chance (more than 0 is better; NaN where there is no chance level)."""

    mean: float
    low: float
    high: float
    gap: float
    examples: int
    left_out: int
    good: bool


@dataclass(frozen=True)
class Shown:
    """One example of a metric: what is said of it, and the explanation and value of some methods."""

    heading: str
    about: str
    strips: tuple[tuple[str, float, Scores], ...]


@dataclass(frozen=True)
class Metric:
    """One metric: a cell per method, what the tests say, and the examples where it is best and worst."""

    name: str
    direction: str
    about: str
    chance: float
    cells: tuple[Cell, ...]
    verdict: str
    best: tuple[Shown, ...]
    worst: tuple[Shown, ...]


@dataclass(frozen=True)
class Report:
    """Everything that the page shows, ready to be drawn."""

    title: str
    facts: tuple[str, ...]
    notes: tuple[str, ...]
    methods: tuple[str, ...]
    metrics: tuple[Metric, ...]
    tests: tuple[tuple[str, ...], ...]
    costs: tuple[tuple[str, ...], ...]
    examples: tuple[tuple[str, ...], ...]
    example_columns: tuple[str, ...]
    left_out: tuple[tuple[str, ...], ...]
    panels: tuple[Panel, ...]


def evaluation_page(report: Report) -> str:
    """Return the whole page; it is valid UTF-8 and runs nothing, whatever the texts hold."""
    facts = "".join(quiet(fact) for fact in report.facts)
    notes = "".join(f"<li>{escape(note)}</li>" for note in report.notes)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>{escape(report.title)}</title>\n<style>\n{style()}{_rules()}</style>\n</head>\n<body>\n<main>\n"
        f'<header>\n<p class="kicker">Evaluation</p>\n<h1>{escape(report.title)}</h1>\n{facts}</header>\n'
        + (f'<ul class="notes">{notes}</ul>\n' if notes else "")
        + _section("Methods and metrics", _heat(report))
        + _section("Means and intervals", _figure(report))
        + _section("Which differences hold", _tests(report))
        + _section("Best and worst examples", _examples(report))
        + _section("All examples", _all(report))
        + _section("What the explanations cost", _costs(report))
        + _section("What was left out", _left_out(report))
        + "<footer>Drawn by pellucid. This page runs no script and loads nothing.</footer>\n</main>\n</body>\n</html>\n"
    )


def _rules() -> str:
    return (
        ".heat td{text-align:center;line-height:1.3;min-width:5.2rem}"
        ".heat td small{display:block;font-size:.86em;font-weight:400}"
        ".heat thead th{white-space:normal;text-align:center;max-width:7.5rem;overflow-wrap:normal;overflow:visible}"
        ".heat thead small{display:block;white-space:nowrap}.heat .best{font-weight:700}"
        ".heat tbody th{max-width:13rem}.heat .chance td,.heat .chance th{color:var(--quiet)}"
        ".sides{display:grid;grid-template-columns:1fr 1fr;gap:.2rem 2rem}"
        ".sides h4{margin:.5rem 0 .1rem;font-size:.9rem}"
        ".shown{border-left:3px solid var(--rule);padding-left:.8rem;margin:.4rem 0 1rem;min-width:0}"
        ".shown .tokens{font-size:.98rem;line-height:1.7;margin:.1rem 0 .55rem}"
        ".shown .of{font:600 .78rem/1.3 ui-sans-serif,system-ui,sans-serif;margin:.2rem 0 0;display:flex;gap:.8rem;"
        "justify-content:space-between;max-width:48rem}.shown .of span:last-child{font-variant-numeric:tabular-nums}"
        ".whole td{white-space:normal}.whole td:nth-child(2){text-align:start;min-width:16rem;unicode-bidi:plaintext}"
        "@media (max-width:40rem){.sides{grid-template-columns:1fr}.heat tbody th{max-width:8.5rem}}" + rules()
    )


def _section(heading: str, inner: str) -> str:
    return f"<section>\n<h2>{escape(heading)}</h2>\n{inner}</section>\n" if inner else ""


def _heat(report: Report) -> str:
    """Return the table of means, each cell on the colour of its gap to chance, on one scale per metric."""
    scales = [largest(np.array([cell.gap for cell in metric.cells])) for metric in report.metrics]
    head = "".join(
        f"<th scope=col>{escape(_spaced(metric.name))}<small>{metric.direction} is better</small></th>"
        for metric in report.metrics
    )
    lines = []
    for row, method in enumerate(report.methods):
        cells = "".join(_cell(m.cells[row], scale) for m, scale in zip(report.metrics, scales, strict=True))
        lines.append(f"<tr><th scope=row>{escape(_spaced(method))}</th>{cells}</tr>\n")
    levels = "".join(f"<td>{_number(metric.chance)}</td>" for metric in report.metrics)
    lines.append(f'<tr class="chance"><th scope=row>chance</th>{levels}</tr>\n')
    inner = (
        '<table class="grid heat"><caption class="unseen">Mean of every metric for every method</caption>'
        f"<thead><tr><th scope=col>method</th>{head}</tr></thead>\n<tbody>\n{''.join(lines)}</tbody></table>\n"
    )
    said = (
        "Mean over examples with its 95 % bootstrap interval. Orange is better than chance, blue worse, on one scale "
        "per metric; cells have no colour where a metric has no chance level. Bold: no test tells it from the best one."
    )
    return wide(inner, "Methods and metrics", broad=True) + quiet(said)


def _cell(cell: Cell, scale: float) -> str:
    if not math.isfinite(cell.mean):
        return "<td>–</td>"
    hint = f"{exact(cell.mean)}, {cell.examples} examples" + (f", {cell.left_out} left out" if cell.left_out else "")
    inside = f"{_number(cell.mean)}<small>{_number(cell.low)} … {_number(cell.high)}</small>"
    colour = shade(cell.gap, scale) if math.isfinite(cell.gap) else ""
    colour = colour.replace(" class=", ' class="') + (' best"' if colour else "") if cell.good else colour
    if cell.good and not colour:
        colour = ' class="best"'
    return f'<td{colour} title="{hint}">{inside}</td>'


def _figure(report: Report) -> str:
    drawn = "".join(panel(one) for one in report.panels)
    return f'<div class="panels">\n{drawn}</div>\n' + quiet(
        "Dot: mean; line: its 95 % interval; dashed: chance. Orange: no test tells the method from the best one."
    )


def _tests(report: Report) -> str:
    if not report.tests:
        return ""
    said = "".join(
        f"<p><b>{escape(_spaced(metric.name))}.</b> {escape(metric.verdict)}</p>\n" for metric in report.metrics
    )
    columns = ("metric", "first", "second", "difference", "p", "p (Holm)", "better")
    how = quiet(
        "Paired sign-flip test of the mean difference over the examples that both methods have, corrected by Holm's "
        "method over all pairs and metrics together; a difference holds where the corrected p is at most 0.05."
    )
    rows = table(columns, report.tests, caption="Differences between methods")
    return said + how + folded(f"All {len(report.tests)} tests", rows, opened=False)


def _examples(report: Report) -> str:
    parts = []
    for metric in report.metrics:
        if not metric.best:
            continue
        sides = "".join(
            f"<div><h4>{heading}</h4>\n{''.join(map(_shown, shown))}</div>\n"
            for heading, shown in (("Best", metric.best), ("Worst", metric.worst))
        )
        parts.append(
            f'<h3>{escape(_spaced(metric.name))}</h3>\n{quiet(metric.about)}<div class="sides">\n{sides}</div>\n'
        )
    return "".join(parts)


def _shown(shown: Shown) -> str:
    strips = "".join(
        f'<p class="of"><span>{escape(_spaced(method))}</span><span>{_number(value)}</span></p>\n{strip(scores)}'
        for method, value, scores in shown.strips
    )
    return f'<div class="shown">\n{quiet(shown.heading)}{quiet(shown.about)}{strips}</div>\n'


def strip(scores: Scores) -> str:
    """Return a prompt with each unit on the colour of its score, without a legend."""
    scale, pieces = largest(scores.values), segments(scores, "unit")
    parts = []
    for text, index, special in pieces:
        shown = escape_flow(text)
        tag = "bdi" if special else "span"
        if index is None:
            parts.append(f"<{tag} class=s>{shown}</{tag}>" if text.strip() else shown)
        else:
            value = float(scores.values[index])
            parts.append(f'<{tag}{shade(value, scale)} title="{exact(value)}">{shown or MISSING}</{tag}>')
    kind = "tokens rtl" if any(right_to_left(text) for text, _, _ in pieces) else "tokens"
    return f'<div class="{kind}" dir="auto">{"".join(parts)}</div>\n'


def _all(report: Report) -> str:
    if not report.examples:
        return ""
    head = "".join(f"<th scope=col>{escape(_spaced(column))}</th>" for column in report.example_columns)
    lines = []
    for row in report.examples:
        number, text, *rest = row
        cut = text if len(text) <= LONGEST_TEXT else text[: LONGEST_TEXT - 1] + "…"
        cells = "".join(f"<td>{escape(cell)}</td>" for cell in rest)
        lines.append(f'<tr><th scope=row>{escape(number)}</th><td dir="auto">{escape(cut)}</td>{cells}</tr>\n')
    inner = (
        '<table class="whole"><caption class="unseen">All examples</caption>'
        f"<thead><tr>{head}</tr></thead>\n<tbody>\n{''.join(lines)}</tbody></table>\n"
    )
    said = quiet("Each metric is its mean over the methods.")
    return said + folded(
        f"{len(report.examples)} examples", wide(inner, "All examples", tall=len(lines) > 12, broad=True), opened=False
    )


def _costs(report: Report) -> str:
    columns = ("method", "seconds per example", "rows forward", "rows backward")
    return table(columns, report.costs, caption="Cost of an explanation") + quiet(
        "Rows whose scores another method of the run had scored already are not counted."
    )


def _left_out(report: Report) -> str:
    if not report.left_out:
        return ""
    return table(("method", "metric", "examples", "the first reason"), report.left_out, caption="What was left out")


def _spaced(name: str) -> str:
    return method_name(name)


def _number(value: float) -> str:
    if not math.isfinite(value):
        return "–"
    return "0" if value == 0 else f"{value:.3g}" if 1e-3 <= abs(value) < 1e4 else four_digits(value)
