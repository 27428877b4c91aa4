"""Graphs, tables, texts, examples and tensors in the terminal."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from rich.console import Group, RenderableType
from rich.table import Table as Grid
from rich.text import Text as Styled

from pellucid.core.results import Examples, Graph, Learned, Table, Text, WeightEdit
from pellucid.render.colours import largest
from pellucid.render.terminal_parts import quiet, shade, styled
from pellucid.render.words import isolated, label, number_format, plain, prose, strongest

MOST_ROWS = 40


def graph(result: Graph) -> RenderableType:
    """Return the strongest edges, strongest first."""
    weights = np.asarray(result.weights, dtype=np.float64)
    shown = sorted(strongest(weights, MOST_ROWS), key=lambda e: -abs(np.nan_to_num(weights[e])))
    scale = largest(weights)
    write = number_format(scale)
    table = _grid("from", "to", result.unit or "weight")
    for e in shown:
        ends = [result.nodes[int(n)] for n in (result.sources[e], result.targets[e])]
        table.add_row(
            *(styled(isolated(label(n.get("label", n.get("id", "?")), 30))) for n in ends),
            styled(write(weights[e]), shade(weights[e], scale)),
        )
    return Group(quiet(f"{len(result.nodes)} nodes, {_of(len(shown), weights.size, 'edges')}"), table)


def rows(result: Table) -> RenderableType:
    """Return a table as it is; the first rows of a long one."""
    shown = result.rows[:MOST_ROWS]
    table = _grid(*(label(column) for column in result.columns))
    for row in shown:
        table.add_row(*(styled(isolated(plain(value))) for value in row))
    return Group(table, quiet(_of(len(shown), len(result.rows), "rows")))


def text(result: Text) -> RenderableType:
    """Return the words with their own line breaks."""
    return styled(prose(result.text))


def examples(result: Examples) -> RenderableType:
    """Return the items in order, each with its value and its fields."""
    shown = result.items[:MOST_ROWS]
    fields = list(dict.fromkeys(key for item in shown for key in item))
    values = np.asarray(result.values, dtype=np.float64)
    scale = largest(values)
    write = number_format(scale)
    table = _grid("#", result.unit or "value", *(label(field) for field in fields))
    for i, item in enumerate(shown):
        value = styled(write(values[i]), shade(values[i], scale)) if i < values.size else Styled()
        table.add_row(str(i + 1), value, *(styled(isolated(plain(item.get(field)))) for field in fields))
    return Group(table, quiet(_of(len(shown), len(result.items), "items")))


def learned(result: Learned) -> RenderableType:
    """Return what was learned, where it applies, and each tensor's shape."""
    about = [f"{key} {value}" for key, value in (("applied by", result.apply), ("at", result.site)) if value]
    about += [f"{label(key)} = {plain(value)}" for key, value in result.settings.items()]
    return Group(quiet(" · ".join(about)), _tensors(result.tensors))


def weight_edit(result: WeightEdit) -> RenderableType:
    """Return which parameters change and by how much."""
    return _tensors({name: result.delta(name) for name in result.names})


def _tensors(tensors: Mapping[str, np.ndarray]) -> RenderableType:
    shown = list(tensors.items())[:MOST_ROWS]
    table = _grid("tensor", "shape", "type", "norm", "largest |value|")
    for key, value in shown:
        numbers = np.asarray(value, dtype=np.float64)
        table.add_row(
            styled(label(key, 60)),
            " × ".join(map(str, value.shape)) or "scalar",
            str(value.dtype),
            f"{np.linalg.norm(numbers):.6g}",
            f"{largest(numbers):.6g}",
        )
    return Group(table, quiet(_of(len(shown), len(tensors), "tensors")))


def _grid(*columns: str) -> Grid:
    table = Grid(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    for column in columns:
        table.add_column(Styled(label(column), style="dim"), overflow="fold")
    return table


def _of(shown: int, total: int, noun: str) -> str:
    return f"{total} {noun}" if shown == total else f"the first {shown} of {total} {noun}"
