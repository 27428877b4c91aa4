"""The one colour scale of all views: blue lowers, orange raises, and zero is the background.

The scale is symmetric around zero and linear: a value v has the strength |v| / max|v|, from the background at 0 to
the full blue or orange at 1. Text keeps one colour in each mode; the ends are chosen so that its contrast stays at
least 4.5 (WCAG AA) at every strength, which `contrast` computes and a test holds.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

LEVELS = 20
Rgb = tuple[int, int, int]


@dataclass(frozen=True)
class Palette:
    """The colours of one mode: background and text, the ends of the scale (behind text, as lines), quieter tones."""

    paper: Rgb
    ink: Rgb
    lowers: Rgb
    raises: Rgb
    down: Rgb
    up: Rgb
    quiet: Rgb
    rule: Rgb
    wash: Rgb
    good: Rgb
    short: Rgb


LIGHT = Palette(
    paper=(255, 255, 255),
    ink=(28, 29, 32),
    lowers=(95, 156, 222),
    raises=(242, 146, 54),
    down=(44, 104, 176),
    up=(206, 98, 8),
    quiet=(92, 96, 104),
    rule=(226, 226, 222),
    wash=(247, 247, 244),
    good=(30, 112, 68),
    short=(160, 66, 6),
)
DARK = Palette(
    paper=(21, 23, 27),
    ink=(233, 231, 226),
    lowers=(37, 99, 170),
    raises=(156, 80, 8),
    down=(112, 170, 232),
    up=(240, 150, 70),
    quiet=(160, 163, 170),
    rule=(52, 55, 62),
    wash=(30, 33, 38),
    good=(112, 196, 148),
    short=(236, 158, 92),
)


def largest(values: np.ndarray) -> float:
    """Return the end of the symmetric scale: the largest finite |value|, or 0 when there is none."""
    finite = np.abs(np.asarray(values, dtype=np.float64))
    finite = finite[np.isfinite(finite)]
    return float(finite.max()) if finite.size else 0.0


def has_negative(values: np.ndarray) -> bool:
    """Say whether the scale needs its blue side."""
    return bool((np.asarray(values, dtype=np.float64) < 0).any())


def level(value: float, scale: float) -> int:
    """Return the strength of a value in steps from -LEVELS (lowers) to LEVELS (raises); 0 for NaN or no scale."""
    if np.isnan(value) or scale <= 0:
        return 0
    return round(max(-1.0, min(1.0, float(value) / scale)) * LEVELS)


def colour(strength: float, palette: Palette) -> Rgb:
    """Return the colour of a strength in [-1, 1]: a straight line from the background to the end of its side."""
    end = palette.raises if strength >= 0 else palette.lowers
    share = min(1.0, abs(strength))
    red, green, blue = (round(p + (e - p) * share) for p, e in zip(palette.paper, end, strict=True))
    return red, green, blue


def hexadecimal(rgb: Rgb) -> str:
    """Return a colour as `#rrggbb`."""
    return "#{:02x}{:02x}{:02x}".format(*rgb)


def contrast(one: Rgb, other: Rgb) -> float:
    """Return the WCAG contrast ratio of two colours, from 1 (equal) to 21 (black on white)."""
    lighter, darker = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


def _luminance(rgb: Rgb) -> float:
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in (value / 255 for value in rgb)]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
