"""An `Explanation` from top to bottom: prediction, notes, methods alone and side by side, evidence, computation."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from pellucid.core.results import Evidence, Explanation, Result, Scores
from pellucid.core.tokens import Tokens
from pellucid.render.colours import largest
from pellucid.render.html_parts import bars, escape, folded, paragraphs, quiet, shade, wide
from pellucid.render.html_scores import TEXT_AXES
from pellucid.render.words import exact, method_name, names, number_format, title

MOST_ROWS = 6000
OPEN_ROWS = 60


def explanation(
    result: Explanation,
    part: Callable[[Result, str], str],
    evidence: Callable[[tuple[Evidence, ...]], str],
    computed: Callable[[Result, str], str],
) -> str:
    """Return the whole view; `part`, `evidence` and `computed` draw the pieces that every kind shares."""
    parts = []
    if result.tokens is not None:
        parts.append(_section("The prompt", _prompt(result.tokens)))
    asked = f"<p>What was explained: <b>{escape(result.target)}</b></p>\n" if result.target else ""
    if result.predictions or result.continuation or asked:
        predicted = (
            bars([(text or "▫", share) for text, share in result.predictions], "Predictions")
            if result.predictions
            else ""
        )
        continued = (
            f'<p class="quiet">The model continued</p>\n{paragraphs(result.continuation)}'
            if result.continuation
            else ""
        )
        parts.append(_section("What the model predicts", predicted + continued + asked))
    if result.notes:
        parts.append('<ul class="notes">' + "".join(f"<li>{escape(note)}</li>" for note in result.notes) + "</ul>\n")
    parts += [part(inner, result.target) for inner in result.results]
    together = _side_by_side(result)
    if together:
        parts.append(_section("Side by side", together))
    if result.evidence:
        parts.append(_section("Evidence", evidence(result.evidence)))
    parts.append(
        _section(
            "How it was computed",
            computed(result, "This explanation")
            + "".join(
                computed(inner, method_name(inner.provenance.method) if inner.provenance.method else title(inner))
                for inner in result.results
            ),
        )
    )
    return "".join(parts)


def _prompt(tokens: Tokens) -> str:
    """Return the text of the prompt; of a chat, message by message under its role."""
    if len(tokens.message) != len(tokens) or not any(tokens.roles):
        return paragraphs(tokens.text) if tokens.text else ""
    messages: dict[int, list[int]] = {}
    for position, message in enumerate(tokens.message):
        if message >= 0:  # the others belong to the template
            messages.setdefault(message, []).append(position)
    return "".join(
        quiet(tokens.roles[places[0]]) + paragraphs("".join(tokens.pieces[place] for place in places))
        for places in messages.values()
    )


def _section(heading: str, inner: str) -> str:
    return f"<section>\n<h2>{escape(heading)}</h2>\n{inner}</section>\n" if inner else ""


def _side_by_side(result: Explanation) -> str:
    """Return the methods that score the same units as the columns of one table, each on its own colour scale."""
    scores = [r for r in result.results if isinstance(r, Scores) and len(r.axes) == 1 and r.axes[0] in TEXT_AXES]
    scores = [
        r
        for r in scores
        if r.values.shape == scores[0].values.shape and names(r, r.axes[0]) == names(scores[0], scores[0].axes[0])
    ]
    if len(scores) < 2:
        return ""
    labels = names(scores[0], scores[0].axes[0])
    scales = [largest(r.values) for r in scores]
    formats = [number_format(scale) for scale in scales]
    lines = []
    for i in range(min(len(labels), MOST_ROWS)):
        cells = []
        for r, scale, write in zip(scores, scales, formats, strict=True):
            spread = (
                ""
                if r.std_error is None
                else f" <small>± {number_format(scale, sign=False)(float(r.std_error[i]))}</small>"
            )
            value = float(np.asarray(r.values)[i])
            cells.append(f'<td{shade(value, scale)} title="{exact(value)}">{write(value)}{spread}</td>')
        lines.append(f"<tr><td>{i}</td><th scope=row>{escape(labels[i])}</th>{''.join(cells)}</tr>\n")
    head = "".join(
        f"<th scope=col>{escape(method_name(r.provenance.method) if r.provenance.method else title(r))}"
        f"{'<br><small>' + escape(r.unit) + '</small>' if r.unit else ''}</th>"
        for r in scores
    )
    inner = (
        f'<table class="values"><thead><tr><th scope=col>#</th><th scope=col>{escape(scores[0].axes[0])}</th>'
        f"{head}</tr></thead><tbody>\n"
        f"{''.join(lines)}</tbody></table>\n"
    )
    shown = f"{len(lines)} rows, each column on its own colour scale"
    return folded(
        shown, wide(inner, "Methods side by side", tall=len(lines) > OPEN_ROWS), opened=len(lines) <= OPEN_ROWS
    )
