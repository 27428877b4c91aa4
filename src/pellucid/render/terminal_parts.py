"""Small pieces of terminal output; texts are never read as markup, so `[red]` in a token stays five characters."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence

from rich.color import Color
from rich.style import Style
from rich.text import Text as Styled

from pellucid.render.colours import DARK, LEVELS, LIGHT, Palette, colour, level
from pellucid.render.words import visible

_BLOCKS = "▁▂▃▄▅▆▇█"
_EIGHTHS = " ▏▎▍▌▋▊▉█"
LONGEST_LINE = 48


def palette() -> Palette:
    """Return the palette for the terminal's background: light where COLORFGBG says so, else dark."""
    background = os.environ.get("COLORFGBG", "").rpartition(";")[2]
    return LIGHT if background in ("7", "15") else DARK


def styled(text: str, style: Style | str = "") -> Styled:
    """Return text that is already visible, with a style."""
    return Styled(text, style=style)


def quiet(text: str) -> Styled:
    """Return a remark in the quieter tone."""
    return Styled("\n".join(visible(line) for line in text.split("\n")), style="dim")


def shade(value: float, scale: float) -> Style | str:
    """Return the style of a value: the shared scale behind text of a fixed colour.

    The weakest step is left out: where the background is not the one assumed, it would stand out instead of fading.
    """
    step = level(value, scale)
    if abs(step) < 2:
        return ""
    chosen = palette()
    return Style(color=Color.from_rgb(*chosen.ink), bgcolor=Color.from_rgb(*colour(step / LEVELS, chosen)))


def bar(share: float, width: int) -> str:
    """Return a share in [0, 1] as a bar of at most `width` cells, exact to an eighth of a cell."""
    if share != share:
        return ""
    eighths = round(max(0.0, min(1.0, share)) * width * 8)
    return "█" * (eighths // 8) + (
        _EIGHTHS[eighths % 8] if eighths % 8 else "" if eighths else "▏" if share > 0 else ""
    )


def sparkline(values: Sequence[float], low: float, high: float) -> str:
    """Return a series as one line of blocks between `low` and `high`; long series are thinned."""
    if len(values) > LONGEST_LINE:
        values = [values[round(i * (len(values) - 1) / (LONGEST_LINE - 1))] for i in range(LONGEST_LINE)]
    span = high - low or 1.0
    return "".join(
        _BLOCKS[round((min(max(v, low), high) - low) / span * (len(_BLOCKS) - 1))] if math.isfinite(v) else " "
        for v in values
    )
