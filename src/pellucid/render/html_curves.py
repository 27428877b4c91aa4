"""Named series over one x-axis as an inline drawing (SVG), with their band where there is one."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

from pellucid.render.html_parts import attribute, escape
from pellucid.render.words import label, number_format

WIDTH, HEIGHT = 460, 230
LEFT, RIGHT, TOP, BOTTOM = 52, 12, 12, 40


def curves(series: Mapping[str, Sequence[float]], name: str, *, x_name: str = "") -> str:
    """Draw every series over `series["x"]`; `<name>_low` and `<name>_high` are the band around the series `<name>`."""
    lines = {key: list(map(float, values)) for key, values in series.items() if key != "x"}
    longest = max((len(v) for v in lines.values()), default=0)
    if longest == 0:
        return ""
    x = [float(v) for v in series.get("x", ())] or [float(i) for i in range(longest)]
    bands = {
        key[:-4]: (values, lines[key[:-4] + "_high"])
        for key, values in lines.items()
        if key.endswith("_low") and key[:-4] + "_high" in lines
    }
    plain = {k: v for k, v in lines.items() if not (k.endswith(("_low", "_high")) and k.rsplit("_", 1)[0] in bands)}
    y = [v for values in lines.values() for v in values]
    place = _Frame(_span(x), _span(y, margin=0.04))
    inner = [place.axes(_within(ticks(x), place.across), _within(ticks(y), place.up), x_name)]
    order = list(dict.fromkeys([*plain, *bands]))
    inner += [
        f'<path class="band c{order.index(key) % 4}" d="{place.area(x, *band)}"/>\n' for key, band in bands.items()
    ]
    inner += [f'<path class="line c{order.index(key) % 4}" d="{place.path(x, v)}"/>\n' for key, v in plain.items()]
    swatches = "".join(
        '<span><svg viewBox="0 0 28 10" width="28" height="10" aria-hidden="true">'
        f'<path class="line c{i % 4}" d="M1 5H27"/></svg> '
        f"{escape(label(key.replace('_', ' ')))}{' and its band' if key in bands else ''}</span> "
        for i, key in enumerate(order)
    )
    return (
        f'<figure class="curve"><svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-label="{attribute(_spoken(name, x, plain))}">\n'
        f"{''.join(inner)}</svg>\n<figcaption>{swatches}</figcaption></figure>\n"
    )


def ticks(values: Sequence[float], count: int = 4) -> list[float]:
    """Return about `count` round numbers that cover the finite values."""
    low, high = _span(values)
    rough = (high - low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * m for m in (1, 2, 2.5, 5, 10) if power * m >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [step * k for k in range(first, last + 1)]


def _span(values: Sequence[float], margin: float = 0.0) -> tuple[float, float]:
    """Return the range of the finite values, widened by a share of it; never empty."""
    finite = [v for v in values if math.isfinite(v)] or [0.0]
    low, high = min(finite), max(finite)
    if high - low <= 1e-12 * max(abs(low), abs(high), 1e-300):
        half = abs(low) / 2 or 0.5
        return low - half, high + half
    return low - margin * (high - low), high + margin * (high - low)


def _within(marks: list[float], span: tuple[float, float]) -> list[float]:
    slack = 1e-9 * (span[1] - span[0])
    return [mark for mark in marks if span[0] - slack <= mark <= span[1] + slack]


def _spoken(name: str, x: list[float], lines: Mapping[str, list[float]]) -> str:
    """Say a drawing in words: where each series begins and ends."""
    said = [f"{key} from {v[0]:.4g} to {v[-1]:.4g}" for key, v in lines.items() if v]
    return f"{name}: over {x[0]:.4g} to {x[-1]:.4g}, " + ", ".join(said)


class _Frame:
    """Where values lie in the drawing."""

    def __init__(self, across: tuple[float, float], up: tuple[float, float]) -> None:
        self.across, self.up = across, up

    def x(self, value: float) -> float:
        return LEFT + (value - self.across[0]) / (self.across[1] - self.across[0]) * (WIDTH - LEFT - RIGHT)

    def y(self, value: float) -> float:
        return HEIGHT - BOTTOM - (value - self.up[0]) / (self.up[1] - self.up[0]) * (HEIGHT - TOP - BOTTOM)

    def path(self, x: Sequence[float], values: Sequence[float]) -> str:
        """Return the line through the finite points; a gap where a value is missing."""
        parts, pen = [], "M"
        for a, b in zip(x, values, strict=False):
            if math.isfinite(a) and math.isfinite(b):
                parts.append(f"{pen}{self.x(a):.1f} {self.y(b):.1f}")
                pen = "L"
            else:
                pen = "M"
        return "".join(parts)

    def area(self, x: Sequence[float], low: Sequence[float], high: Sequence[float]) -> str:
        points = [(a, b, c) for a, b, c in zip(x, low, high, strict=False) if math.isfinite(a + b + c)]
        if not points:
            return ""
        forth = self.path([p[0] for p in points], [p[2] for p in points])
        back = self.path([p[0] for p in reversed(points)], [p[1] for p in reversed(points)])
        return f"{forth}L{back[1:]}Z"

    def axes(self, ticks_x: list[float], ticks_y: list[float], x_name: str) -> str:
        write_x, write_y = (_tick_format(t) for t in (ticks_x, ticks_y))
        across = "".join(
            f'<path class="rule" d="M{LEFT} {self.y(t):.1f}H{WIDTH - RIGHT}"/>'
            f'<text class="end" x="{LEFT - 7}" y="{self.y(t) + 4:.1f}">{write_y(t)}</text>\n'
            for t in ticks_y
        )
        along = "".join(
            f'<text class="mid" x="{self.x(t):.1f}" y="{HEIGHT - BOTTOM + 17}">{write_x(t)}</text>\n' for t in ticks_x
        )
        title = (
            f'<text class="mid" x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 4}">{escape(x_name)}</text>\n'
            if x_name
            else ""
        )
        return across + along + title


def _tick_format(values: list[float]) -> Callable[[float], str]:
    step = abs(values[1] - values[0]) if len(values) > 1 else 1.0
    largest = max(map(abs, values))
    digits = max(1, math.floor(math.log10(largest or 1)) - math.floor(math.log10(step)) + (1 if _whole(step) else 2))
    return number_format(largest, digits=digits, sign=False)


def _whole(step: float) -> bool:
    mantissa = step / 10.0 ** math.floor(math.log10(step))
    return abs(mantissa - round(mantissa)) < 1e-6
