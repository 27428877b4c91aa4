"""A result as a matplotlib figure, for papers; no window, no global state (needs the extra `plot`)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from pellucid.core.errors import InputError, optional
from pellucid.core.results import (
    Evidence,
    Examples,
    Explanation,
    Graph,
    Learned,
    Result,
    Scores,
    Table,
    Text,
    WeightEdit,
)
from pellucid.render.colours import LIGHT, colour, has_negative, largest
from pellucid.render.words import label, names, percent, plain, prose, strongest, title, words_at

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_BARS = 40
MOST_LINES, MOST_COLUMNS = 60, 80
MOST_TABLE_ROWS = 30
MOST_PANELS = 6
MOST_WORDS = 600


def figure(result: Result) -> Figure:
    """Return a figure of a result: bars, grid, curve, graph, table or text by its kind and axes.

    Raises:
        MissingExtra: without matplotlib.
        InputError: if the value is no kind of result.
    """
    if type(result).__name__ not in (*VIEWS, "Explanation"):
        kind = type(result).__name__
        raise InputError(
            f"A figure was asked for a {kind}, which is no kind of result; use one of {[*VIEWS, 'Explanation']}."
        )
    matplotlib = optional("matplotlib.figure", "plot", "A figure")
    parts = _parts(result)
    heights = [height for height, _ in parts]
    drawn: Figure = matplotlib.Figure(figsize=(7.5, sum(heights) + 0.5), layout="constrained")
    axes = drawn.subplots(len(parts), 1, squeeze=False, gridspec_kw={"height_ratios": heights})[:, 0]
    for (_, draw), where in zip(parts, axes, strict=True):
        draw(where)
        where.spines[["top", "right"]].set_visible(False)
    drawn.suptitle(_escape(title(result)), fontsize=12)
    return drawn


Part = tuple[float, Callable[["Axes"], None]]


def _parts(result: Result, heading: str = "") -> list[Part]:
    """Return each drawing with its height in inches."""
    if isinstance(result, Explanation):
        parts: list[Part] = [_predictions(result)] if result.predictions else []
        for inner in result.results:
            parts += _parts(inner, title(inner))
        return parts + [_curves(e) for e in result.evidence if e.curves] or [
            (1.0, lambda axes: _words(axes, "No results", ""))
        ]
    return [*VIEWS[type(result).__name__](result, heading), *(_curves(e) for e in result.evidence if e.curves)]


def _scores(result: Scores, heading: str) -> list[Part]:
    values = np.asarray(result.values, dtype=np.float64)
    if values.size == 0 or values.ndim == 0:
        return [(1.0, lambda axes: _words(axes, f"{values} {result.unit}", heading))]
    if values.ndim == 1 and result.axes[0] in ("fraction", "step"):
        return [(2.6, lambda axes: _line(axes, result, heading))]
    if values.ndim == 1:
        return [(0.6 + 0.2 * min(values.size, MOST_BARS), lambda axes: _bars(axes, result, heading))]
    panels = [()] if values.ndim == 2 else list(np.ndindex(values.shape[:-2]))
    kept = strongest(np.array([largest(values[index]) for index in panels]), MOST_PANELS)
    scale = largest(values) or 1.0
    height = 1.0 + 0.2 * min(values.shape[-2], MOST_LINES)

    def draw(index: tuple[int, ...]) -> Part:
        name = ", ".join(f"{axis} {names(result, axis)[i]}" for axis, i in zip(result.axes, index, strict=False))
        return height, lambda axes: _grid(axes, _panel(result, index), scale, " · ".join(filter(None, (heading, name))))

    return [draw(panels[place]) for place in kept]


def _bars(axes: Axes, result: Scores, heading: str) -> None:
    kept = strongest(result.values, MOST_BARS)
    values = np.asarray(result.values, dtype=np.float64)[kept]
    entries = names(result, result.axes[0])
    errors = None if result.std_error is None else np.asarray(result.std_error)[kept]
    shades = [_fraction(LIGHT.up if value >= 0 else LIGHT.down) for value in values]
    axes.barh(range(len(kept)), np.where(np.isfinite(values), values, 0.0), xerr=errors, color=shades, height=0.75)
    axes.set_yticks(range(len(kept)), [_escape(label(entries[i], 24)) for i in kept], fontsize=8)
    axes.invert_yaxis()
    axes.axvline(0, color="black", linewidth=0.6)
    note = "" if len(kept) == result.values.size else f" (the {len(kept)} strongest of {result.values.size})"
    axes.set_xlabel(_escape((result.unit or "value") + note), fontsize=9)
    axes.set_title(_escape(heading), fontsize=10, loc="left")


def _panel(result: Scores, index: tuple[int, ...]) -> Scores:
    """Return the last two axes at one place of the others."""
    values = np.asarray(result.values, dtype=np.float64)[index]
    return replace(result, values=values, axes=result.axes[-2:], std_error=None, words=words_at(result, index))


def _grid(axes: Axes, result: Scores, scale: float, heading: str) -> None:
    """Draw two axes as a picture; rows and columns past the limits are those with the largest values."""
    values = np.asarray(result.values, dtype=np.float64)
    strength = np.nan_to_num(np.abs(values), nan=0.0)
    rows, columns = strongest(strength.max(axis=1), MOST_LINES), strongest(strength.max(axis=0), MOST_COLUMNS)
    low = -scale if has_negative(result.values) else 0.0
    image = axes.imshow(values[np.ix_(rows, columns)], cmap=_map(low < 0), vmin=low, vmax=scale, aspect="auto")
    across, down = names(result, result.axes[-1]), names(result, result.axes[-2])
    axes.set_xticks(range(len(columns)), [_escape(label(across[j], 14)) for j in columns], rotation=90, fontsize=7)
    axes.set_yticks(range(len(rows)), [_escape(label(down[i], 20)) for i in rows], fontsize=7)
    axes.set_xlabel(result.axes[-1].replace("_", " "), fontsize=9)
    axes.set_ylabel(result.axes[-2].replace("_", " "), fontsize=9)
    axes.set_title(_escape(heading), fontsize=10, loc="left")
    axes.figure.colorbar(image, ax=axes, label=_escape(result.unit or "value"), fraction=0.04)
    if result.words is not None and len(rows) * len(columns) <= MOST_WORDS:
        for y, i in enumerate(rows):
            for x, j in enumerate(columns):
                word = _escape(label(result.words[i * values.shape[1] + j], 8))
                axes.text(x, y, word, ha="center", va="center", fontsize=6, color=_fraction(LIGHT.ink))


def _line(axes: Axes, result: Scores, heading: str) -> None:
    values = np.asarray(result.values, dtype=np.float64)
    axes.plot(values, color=_fraction(LIGHT.up), label=_escape(result.unit or "value"))
    if result.std_error is not None:
        axes.fill_between(
            range(values.size),
            values - result.std_error,
            values + result.std_error,
            color=_fraction(LIGHT.up),
            alpha=0.2,
            linewidth=0,
        )
    entries = result.labels.get(result.axes[0])
    if entries:
        places = sorted({round(i) for i in np.linspace(0, values.size - 1, min(values.size, 11))})
        axes.set_xticks(places, [_escape(label(entries[i], 10)) for i in places], fontsize=8)
    axes.set_xlabel(result.axes[0], fontsize=9)
    axes.set_ylabel(_escape(result.unit), fontsize=9)
    axes.set_title(_escape(heading), fontsize=10, loc="left")


def _curves(evidence: Evidence) -> Part:
    def draw(axes: Axes) -> None:
        for number, (name, values) in enumerate(
            (k, v) for k, v in evidence.curves.items() if k != "x" and _main(k, evidence)
        ):
            x = evidence.curves.get("x", tuple(range(len(values))))
            shade = _fraction((LIGHT.up, LIGHT.quiet, LIGHT.down, LIGHT.ink)[number % 4])
            axes.plot(
                x, values, ("-", "--", "-.", ":")[number % 4], color=shade, label=_escape(label(name.replace("_", " ")))
            )
            low, high = evidence.curves.get(f"{name}_low"), evidence.curves.get(f"{name}_high")
            if low is not None and high is not None:
                axes.fill_between(x, low, high, color=shade, alpha=0.2, linewidth=0)
        if axes.get_legend_handles_labels()[0]:
            axes.legend(fontsize=8, frameon=False)
        axes.set_title(_escape(label(evidence.name.replace("_", " ").capitalize())), fontsize=10, loc="left")

    return 2.4, draw


def _main(name: str, evidence: Evidence) -> bool:
    return not (name.endswith(("_low", "_high")) and name.rsplit("_", 1)[0] in evidence.curves)


def _predictions(result: Explanation) -> Part:
    def draw(axes: Axes) -> None:
        shares = [share for _, share in result.predictions]
        bars = axes.barh(range(len(shares)), np.nan_to_num(shares), color=_fraction(LIGHT.up), height=0.7)
        axes.bar_label(bars, [percent(share) for share in shares], fontsize=8, padding=3)
        axes.set_yticks(range(len(shares)), [_escape(label(text, 24)) for text, _ in result.predictions], fontsize=8)
        axes.set_xlim(0, 1.12)
        axes.invert_yaxis()
        axes.set_title("What the model predicts", fontsize=10, loc="left")

    return 0.5 + 0.22 * len(result.predictions), draw


def _graph(result: Graph, heading: str) -> list[Part]:
    """Draw a graph as bars of its strongest edges; the page has the drawing of nodes."""
    ends = [
        (
            label(result.nodes[int(a)].get("label", result.nodes[int(a)].get("id", "?")), 20),
            label(result.nodes[int(b)].get("label", result.nodes[int(b)].get("id", "?")), 20),
        )
        for a, b in zip(result.sources, result.targets, strict=True)
    ]
    edges = Scores(
        values=np.asarray(result.weights),
        axes=("example",),
        unit=result.unit or "weight",
        labels={"example": tuple(f"{a} → {b}" for a, b in ends)},
    )
    return _scores(edges, heading)


def _examples(result: Examples, heading: str) -> list[Part]:
    texts = tuple(f"{i + 1} {plain(next(iter(item.values()), ''))}" for i, item in enumerate(result.items))
    if len(texts) != np.size(result.values):
        return [(1.0, lambda axes: _words(axes, "\n".join(texts[:MOST_TABLE_ROWS]), heading))]
    return _scores(
        Scores(values=np.asarray(result.values), axes=("example",), labels={"example": texts}, unit=result.unit),
        heading,
    )


def _table(result: Table, heading: str) -> list[Part]:
    rows = [
        [_escape(label(plain(value), 40)) if plain(value) else "" for value in row]
        for row in result.rows[:MOST_TABLE_ROWS]
    ]
    return _cells([_escape(label(column)) for column in result.columns], rows, heading)


def _tensors(result: Learned | WeightEdit, heading: str) -> list[Part]:
    edit = isinstance(result, WeightEdit)
    tensors = {name: result.delta(name) for name in result.names} if edit else result.tensors
    rows = [
        [_escape(label(name, 40)), " × ".join(map(str, value.shape)), f"{np.linalg.norm(value.astype(np.float64)):.4g}"]
        for name, value in list(tensors.items())[:MOST_TABLE_ROWS]
    ]
    return _cells(["tensor", "shape", "norm"], rows, heading)


def _cells(columns: list[str], rows: list[list[str]], heading: str) -> list[Part]:
    def draw(axes: Axes) -> None:
        axes.axis("off")
        axes.set_title(_escape(heading), fontsize=10, loc="left")
        if rows and columns:
            axes.table(rows, colLabels=columns, loc="upper left", cellLoc="left", edges="horizontal")

    return [(0.6 + 0.25 * len(rows), draw)]


def _text(result: Text, heading: str) -> list[Part]:
    lines = prose(result.text).split("\n")
    return [(0.6 + 0.2 * len(lines), lambda axes: _words(axes, "\n".join(lines), heading))]


def _words(axes: Axes, words: str, heading: str) -> None:
    axes.axis("off")
    axes.set_title(_escape(heading), fontsize=10, loc="left")
    axes.text(0, 1, _escape(words), va="top", wrap=True, transform=axes.transAxes)


def _map(both: bool) -> Any:
    """Return the shared scale as a colour map, or its orange half."""
    colors = optional("matplotlib.colors", "plot", "A figure")
    ends = [_fraction(colour(s, LIGHT)) for s in ((-1, 0, 1) if both else (0, 1))]
    return colors.LinearSegmentedColormap.from_list("pellucid", ends)


def _fraction(rgb: tuple[int, int, int]) -> tuple[float, float, float]:
    return rgb[0] / 255, rgb[1] / 255, rgb[2] / 255


def _escape(text: str) -> str:
    """Keep matplotlib from reading `$...$` as formulas."""
    return text.replace("$", r"\$")


VIEWS: dict[str, Callable[[Any, str], list[Part]]] = {
    "Scores": _scores,
    "Graph": _graph,
    "Table": _table,
    "Text": _text,
    "Examples": _examples,
    "Learned": _tensors,
    "WeightEdit": _tensors,
}
