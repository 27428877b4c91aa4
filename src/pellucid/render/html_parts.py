"""Small pieces of HTML that several views are made of; all text passes through `escape`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from html import escape as _escape

from pellucid.render.colours import level
from pellucid.render.words import percent, prose, right_to_left, visible


def escape(text: object) -> str:
    """Return text that a page shows and never obeys: markup escaped, control characters visible, RTL isolated."""
    shown = _escape(visible(str(text)))
    return f"<bdi>{shown}</bdi>" if right_to_left(shown) else shown


def attribute(text: object) -> str:
    """Return text for the inside of a quoted attribute."""
    return _escape(visible(str(text)))


def paragraphs(text: str) -> str:
    """Return longer text with its own line breaks."""
    return f'<p class="prose" dir="auto">{_escape(prose(text))}</p>\n'


def quiet(text: str) -> str:
    """Return a remark in the quieter tone, or nothing for an empty one."""
    return f'<p class="quiet">{escape(text)}</p>\n' if text else ""


def shade(value: float, scale: float) -> str:
    """Return the class attribute that colours a value, or nothing for zero."""
    step = level(value, scale)
    return "" if step == 0 else f" class={'p' if step > 0 else 'n'}{abs(step)}"


def wide(inner: str, name: str, *, tall: bool = False, broad: bool = False) -> str:
    """Return a region that scrolls by itself, by mouse, touch and keyboard.

    A `tall` one is no higher than the window, a `broad` one may reach to its right edge.
    """
    kind = "wide" + (" tall" if tall else "") + (" broad" if broad else "")
    return f'<div class="{kind}" role="region" tabindex="0" aria-label="{attribute(name)}">\n{inner}</div>\n'


def table(columns: Sequence[str], rows: Sequence[Sequence[str]], *, caption: str) -> str:
    """Return a table of texts, the first column naming its rows."""
    head = "".join(f"<th scope=col>{escape(column)}</th>" for column in columns)
    lines = [
        f"<tr><th scope=row>{escape(row[0])}</th>" + "".join(f"<td>{escape(cell)}</td>" for cell in row[1:]) + "</tr>\n"
        for row in rows
    ]
    inner = f'<table><caption class="unseen">{escape(caption)}</caption>\n<thead><tr>{head}</tr></thead>\n<tbody>'
    return wide(f"{inner}{''.join(lines)}</tbody></table>\n", caption, tall=len(rows) > 60)


def folded(summary: str, inner: str, *, opened: bool) -> str:
    """Return a part that the reader can fold."""
    return f"<details{' open' if opened else ''}><summary>{escape(summary)}</summary>\n{inner}</details>\n"


def legend(scale: float, write: Callable[[float], str], unit: str, sign: str, *, both: bool) -> str:
    """Return the printed colour scale: its two ends, its unit and how to read the sign."""
    low = f"<span>{write(-scale)}</span>" if both else "<span>0</span>"
    words = " · ".join(part for part in (unit, sign) if part)
    if scale == 0:
        return quiet(f"All values are zero{' (' + unit + ')' if unit else ''}.")
    side = "both" if both else "one"
    name = f"Colour scale: {'blue ' + write(-scale) + ', ' if both else ''}background 0, orange {write(scale)}"
    return (
        f'<div class="legend"><span class="bar" role="img" aria-label="{attribute(name)}">{low}<i class="{side}"></i>'
        f"<span>{write(scale)}</span></span><span>{escape(words)}</span></div>\n"
    )


def bars(items: Sequence[tuple[str, float]], name: str) -> str:
    """Return probabilities as bars, each with its number beside it."""
    lines = []
    for text, share in items:
        width = max(0.0, min(1.0, share)) * 100 if share == share else 0.0
        lines.append(
            f'<tr><th scope=row>{escape(text)}</th><td class="track"><i style="width:{width:.2f}%"></i></td>'
            f"<td>{percent(share)}</td></tr>\n"
        )
    caption = f'<caption class="unseen">{escape(name)}</caption>'
    return f'<table class="bars">{caption}<tbody>\n{"".join(lines)}</tbody></table>\n'
