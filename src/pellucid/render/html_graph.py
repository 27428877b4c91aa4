"""A `Graph` as a drawing of its strongest edges and a table of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from pellucid.core.results import Graph
from pellucid.render.colours import has_negative, largest
from pellucid.render.html_parts import escape, legend, quiet, shade, wide
from pellucid.render.words import exact, label, number_format, strongest

MOST_DRAWN = 60
MOST_ROWS = 500
COLUMN, ROW, BOX, MARGIN = 186, 60, 116, 30


def graph(result: Graph) -> str:
    """Return the drawing, the scale and the table; only the strongest edges of a large graph, which is said."""
    weights = np.asarray(result.weights, dtype=np.float64)
    size = f"{len(result.nodes)} nodes, {weights.size} edges"
    if weights.size == 0:
        return quiet(f"{size}.")
    drawn, listed = strongest(weights, MOST_DRAWN), strongest(weights, MOST_ROWS)
    scale = largest(weights)
    both = has_negative(weights)
    note = f"{size}; the {len(drawn)} strongest are drawn." if len(drawn) < weights.size else f"{size}."
    return (
        quiet(note)
        + _drawing(result, drawn, scale)
        + legend(scale, number_format(scale, sign=both), result.unit, "", both=both)
        + _edges(result, weights, listed, scale)
    )


def name(node: Mapping[str, Any]) -> str:
    """Return what a node is called: its label, else its id."""
    return label(node.get("label", node.get("id", "?")), 60)


def columns(result: Graph, edges: list[int]) -> dict[int, int]:
    """Return the column of every node that the edges touch: its layer where known, else its depth along the edges."""
    touched = sorted({int(n) for e in edges for n in (result.sources[e], result.targets[e])})
    layers = [result.nodes[n].get("layer") for n in touched]
    if all(isinstance(layer, int | np.integer) for layer in layers):
        order = {layer: i for i, layer in enumerate(sorted(set(layers)))}  # type: ignore[type-var]
        return {n: order[layer] for n, layer in zip(touched, layers, strict=True)}
    depth = dict.fromkeys(touched, 0)
    for _ in touched:  # longest paths settle after as many rounds as there are nodes; a cycle stops there
        changed = False
        for e in edges:
            a, b = int(result.sources[e]), int(result.targets[e])
            if a != b and depth[a] + 1 > depth[b] and depth[a] + 1 < len(touched):
                depth[b], changed = depth[a] + 1, True
        if not changed:
            break
    order = {d: i for i, d in enumerate(sorted(set(depth.values())))}
    return {n: order[d] for n, d in depth.items()}


def _drawing(result: Graph, edges: list[int], scale: float) -> str:
    column = columns(result, edges)
    rows: dict[int, list[int]] = {}
    for node in sorted(column, key=lambda n: (column[n], _position(result.nodes[n]), n)):
        rows.setdefault(column[node], []).append(node)
    tallest = max(map(len, rows.values()))
    place = {}
    for c, members in rows.items():
        for i, node in enumerate(members):
            place[node] = (MARGIN + c * COLUMN, MARGIN + (i + (tallest - len(members)) / 2) * ROW)
    width, height = MARGIN * 2 + max(rows) * COLUMN + BOX, MARGIN * 2 + (tallest - 1) * ROW + 26
    parts = []
    for e in sorted(edges, key=lambda e: abs(float(result.weights[e]))):
        (x0, y0), (x1, y1) = place[int(result.sources[e])], place[int(result.targets[e])]
        weight = float(result.weights[e])
        x0, y0, y1, bend = x0 + BOX, y0 + 13, y1 + 13, max(30.0, abs(x1 - x0 - BOX) / 2)
        bow = -0.75 * ROW if abs(x1 - x0) > COLUMN and abs(y1 - y0) < ROW / 2 else 0.0  # pass above the boxes between
        thick = 0.6 + 4 * min(1.0, abs(weight) / scale) if scale and np.isfinite(weight) else 0.6
        parts.append(
            f'<path class="edge {"up" if weight >= 0 else "down"}" stroke-width="{thick:.1f}" '
            f'd="M{x0} {y0:.0f}C{x0 + bend:.0f} {y0 + bow:.0f} {x1 - bend:.0f} {y1 + bow:.0f} {x1} {y1:.0f}"/>\n'
        )
    for node, (x, y) in place.items():
        full = name(result.nodes[node])
        short = full if len(full) <= 16 else full[:15] + "…"
        parts.append(
            f'<g><title>{escape(full)}</title><rect class="node" x="{x}" y="{y:.0f}" width="{BOX}" height="26" rx="5"/>'
            f'<text class="mid" x="{x + BOX / 2:.0f}" y="{y + 17:.0f}">{_svg(short)}</text></g>\n'
        )
    picture = (
        f'<svg class="graph" width="{width}" height="{height:.0f}" viewBox="0 0 {width} {height:.0f}" role="img" '
        f'aria-label="Graph of {len(place)} nodes and {len(edges)} edges, listed in the table below">\n'
        f"{''.join(parts)}</svg>\n"
    )
    return wide(picture, "Graph", broad=True)


def _edges(result: Graph, weights: np.ndarray, listed: list[int], scale: float) -> str:
    write = number_format(scale)
    lines = [
        f"<tr><th scope=row>{escape(name(result.nodes[int(result.sources[e])]))}</th>"
        f"<td>{escape(name(result.nodes[int(result.targets[e])]))}</td>"
        f'<td{shade(weights[e], scale)} title="{exact(weights[e])}">{write(weights[e])}</td></tr>\n'
        for e in sorted(listed, key=lambda e: -abs(np.nan_to_num(weights[e])))
    ]
    head = f"<th scope=col>from</th><th scope=col>to</th><th scope=col>{escape(result.unit or 'weight')}</th>"
    note = quiet(f"The {len(listed)} strongest of {weights.size} edges.") if len(listed) < weights.size else ""
    inner = f'<table class="values edges"><thead><tr>{head}</tr></thead><tbody>\n{"".join(lines)}</tbody></table>\n'
    return note + wide(inner, "Edges, strongest first", tall=len(listed) > 20)


def _position(node: Mapping[str, Any]) -> float:
    position = node.get("position", 0)
    return float(position) if isinstance(position, int | float) else 0.0


def _svg(text: str) -> str:
    """Escape for SVG text, which knows no bdi element; a label stands alone there."""
    return escape(text).replace("<bdi>", "").replace("</bdi>", "")
