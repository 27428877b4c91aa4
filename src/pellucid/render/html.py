"""A result as one self-contained page: nothing loaded from elsewhere, whole without script, light and dark."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from importlib import resources
from typing import Any

from pellucid.core.errors import InputError
from pellucid.core.results import Evidence, Explanation, Result, Scores
from pellucid.render import colours
from pellucid.render.html_curves import curves
from pellucid.render.html_explanation import explanation
from pellucid.render.html_graph import graph
from pellucid.render.html_parts import escape, quiet, table
from pellucid.render.html_plain import examples, learned, rows, text, weight_edit
from pellucid.render.html_scores import scores
from pellucid.render.words import common_format, cost_line, evidence_mark, four_digits, method_name, pairs, plain, title

VIEWS: dict[str, Callable[[Any], str]] = {
    "Scores": scores,
    "Graph": graph,
    "Table": rows,
    "Text": text,
    "Examples": examples,
    "Learned": learned,
    "WeightEdit": weight_edit,
}
# A page may load nothing at all and runs only its own script, even if some text should ever get past the escaping.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"


def page(result: Result) -> str:
    """Return a whole HTML page for a result; it is valid UTF-8 whatever its tokens hold.

    Raises:
        InputError: if the value is no kind of result.
    """
    name = title(result)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy()}">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>{escape(name)}</title>\n<style>\n{style()}</style>\n</head>\n<body>\n<main>\n"
        f'<header>\n<p class="kicker">{type(result).__name__}</p>\n<h1>{escape(name)}</h1>\n'
        f"{quiet(cost_line(result.provenance))}</header>\n{body(result)}"
        "<footer>Drawn by pellucid. This page loads nothing from anywhere.</footer>\n</main>\n"
        f"<script>{script()}</script>\n</body>\n</html>\n"
    )


@cache
def script() -> str:
    """Return the script of every page, the text of `page.js`: sorting, and values by keyboard."""
    return resources.files("pellucid.render").joinpath("page.js").read_text("utf-8")


@cache
def policy() -> str:
    """Return the content security policy of a page, which names its script by its hash."""
    digest = base64.b64encode(hashlib.sha256(script().encode()).digest()).decode()
    return f"{_POLICY}; script-src 'sha256-{digest}'"


def body(result: Result) -> str:
    """Return the view of a result, then its evidence and how it was computed."""
    kind = type(result).__name__
    if isinstance(result, Explanation):
        return explanation(result, part, evidence, computed)
    if kind not in VIEWS:
        raise InputError(
            f"A page was asked for a {kind}, which is no kind of result; use one of {[*VIEWS, 'Explanation']}."
        )
    return VIEWS[kind](result) + evidence(result.evidence) + computed(result)


def part(result: Result, known_target: str) -> str:
    """Return a result as a section of a larger page, which has said the model and the target already."""
    name = method_name(result.provenance.method) if result.provenance.method else title(result)
    if isinstance(result, Scores) and result.target == known_target:
        result = replace(result, target="")
    if isinstance(result, Explanation):
        inner = body(result)
    else:
        inner = VIEWS[type(result).__name__](result) + evidence(result.evidence)
    return f"<section>\n<h2>{escape(name)}</h2>\n{quiet(cost_line(result.provenance, short=True))}{inner}</section>\n"


def evidence(checks: tuple[Evidence, ...]) -> str:
    """Return each check as a sentence with its verdict, its numbers and its curves."""
    return "".join(_check(check) for check in checks)


def _check(check: Evidence) -> str:
    verdict = evidence_mark(check)
    mark = f'<span class="{"good" if check.ok else "short"}">{verdict}</span> ' if verdict else ""
    head = f"<p>{mark}<b>{escape(method_name(check.name))}.</b> {escape(check.summary)}</p>\n"
    matrix = pairs(list(check.values))
    if matrix is not None and len(matrix) > 1:
        sides = list(dict.fromkeys(name for pair in matrix for name in pair))
        write = common_format(check.values.values())
        known = {
            **{(b, a): v for (a, b), v in zip(matrix, check.values.values(), strict=True)},
            **dict(zip(matrix, check.values.values(), strict=True)),
        }
        cells = [[method_name(a), *(write(known[a, b]) if (a, b) in known else "–" for b in sides)] for a in sides]
        numbers = table(["", *map(method_name, sides)], cells, caption=check.name)
    else:
        facts = [(escape(key.replace("_", " ")), four_digits(value)) for key, value in check.values.items()]
        numbers = "".join(f"<div><dt>{key}</dt><dd>{value}</dd></div>" for key, value in facts)
        numbers = f'<dl class="numbers">{numbers}</dl>\n' if numbers else ""
    picture = curves(check.curves, check.name) if check.curves else ""
    drawn = " drawn" if picture else ""
    return f'<div class="evidence{drawn}">\n<div>\n{head}{numbers}</div>\n{picture}</div>\n'


def computed(result: Result, head: str = "How it was computed") -> str:
    """Return how a result came about, as a list that is folded away."""
    provenance = result.provenance
    facts: list[tuple[str, str]] = [
        ("Method", provenance.method),
        ("Paper", provenance.paper),
        ("Rows of the map", ", ".join(provenance.rows)),
        ("Model", provenance.model),
        ("Revision", provenance.revision),
        ("Weights", provenance.weights_hash),
        ("Edits", "; ".join(provenance.edits)),
        ("Number type", provenance.dtype),
        ("Device", provenance.device),
        ("Seed", "" if provenance.seed is None else str(provenance.seed)),
        ("Time", f"{provenance.seconds:.3g} s" if provenance.seconds else ""),
        (
            "Passes",
            f"{provenance.forwards} forward, {provenance.backwards} backward"
            if provenance.forwards or provenance.backwards
            else "",
        ),
        *((f"{key} =", plain(value) or "none") for key, value in provenance.parameters.items()),
        ("Versions", ", ".join(f"{k} {v}" for k, v in provenance.versions.items())),
    ]
    items = "".join(f"<div><dt>{escape(key)}</dt><dd>{escape(value)}</dd></div>\n" for key, value in facts if value)
    return (
        f'<details class="computed"><summary>{escape(head)}</summary>\n<dl>\n{items}</dl></details>\n' if items else ""
    )


@cache
def style() -> str:
    """Return the style sheet: the text of `page.css`, with the colours and the scale of both modes filled in."""
    sheet = resources.files("pellucid.render").joinpath("page.css").read_text("utf-8")
    return (
        sheet + f":root{{{_variables(colours.LIGHT)}}}\n{_scale(colours.LIGHT)}\n"
        f"@media (prefers-color-scheme:dark){{\n:root{{{_variables(colours.DARK)}}}\n{_scale(colours.DARK)}\n}}\n"
    )


def _variables(palette: colours.Palette) -> str:
    return "".join(f"--{name}:{colours.hexadecimal(rgb)};" for name, rgb in vars(palette).items())


def _scale(palette: colours.Palette) -> str:
    """Return one class per step: `.p1` ... raise, `.n1` ... lower; classes keep 5,000 tokens small."""
    steps = range(1, colours.LEVELS + 1)
    return "".join(
        f".{side}{step}{{background:{colours.hexadecimal(colours.colour(sign * step / colours.LEVELS, palette))}}}"
        for side, sign in (("p", 1), ("n", -1))
        for step in steps
    )
