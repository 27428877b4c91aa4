"""Results as pandas tables, and the names of the entries of an axis."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import numpy as np

from pellucid.core.errors import InputError, optional

if TYPE_CHECKING:
    import pandas as pd  # pyright: ignore[reportMissingTypeStubs]

    from pellucid.core.results import Explanation, Scores, Table


def axis_labels(scores: Scores, axis: str) -> tuple[str, ...] | None:
    """Return one name per entry of `axis`: its labels, else the texts of its units or tokens, else None."""
    size = scores.values.shape[scores.axes.index(axis)]
    if axis in scores.labels:
        return tuple(scores.labels[axis])
    if axis in ("unit", "other_unit"):
        if scores.units is not None and len(scores.units.labels) == size:
            return scores.units.labels
        if scores.units is None and scores.tokens is not None and len(scores.tokens) == size:
            return scores.tokens.pieces
    if axis in ("position", "query", "key") and scores.tokens is not None and len(scores.tokens) == size:
        return scores.tokens.pieces
    return None


def scores_to_pandas(scores: Scores) -> pd.DataFrame:
    """Return one row per entry in C order: a column per axis (names, else indices), then `value` and `std_error`.

    `std_error` is NaN where nothing was sampled; words, where there are any, have a column of their own.
    """
    pandas = _pandas()
    columns: dict[str, Any] = {}
    indices: list[Any] = [i.ravel() for i in cast("Any", np.indices(scores.values.shape))]
    for axis, index in zip(scores.axes, indices, strict=True):
        labels = axis_labels(scores, axis)
        columns[axis] = index if labels is None else _texts(pandas, [labels[i] for i in index])
    columns["value"] = scores.values.ravel()
    missing = np.full(scores.values.size, np.nan)
    columns["std_error"] = missing if scores.std_error is None else scores.std_error.ravel()
    if scores.words is not None:
        columns["word"] = _texts(pandas, list(scores.words))
    return pandas.DataFrame(columns)


def table_to_pandas(table: Table) -> pd.DataFrame:
    """Return the rows of a `Table` under its columns."""
    pandas = _pandas()
    wrong = next((row for row in table.rows if len(row) != len(table.columns)), None)
    if wrong is not None:
        raise InputError(
            f"The table has {len(table.columns)} columns and a row of {len(wrong)} values; give one value per column."
        )
    frame = pandas.DataFrame({i: _column(pandas, [row[i] for row in table.rows]) for i in range(len(table.columns))})
    frame.columns = list(table.columns)
    return frame


def explanation_to_pandas(explanation: Explanation) -> pd.DataFrame:
    """Return the scores of all methods as one long table: `method`, a column per axis, `value` and `std_error`.

    Axes that a method lacks are empty in its rows; results that are not `Scores` are left out.
    """
    from pellucid.core.results import Scores

    pandas = _pandas()
    frames: list[Any] = []
    for result in explanation.results:
        if isinstance(result, Scores):
            frame = scores_to_pandas(result)
            frame.insert(0, "method", _texts(pandas, [result.provenance.method or result.title] * len(frame)))
            frames.append(frame)
    if not frames:
        return pandas.DataFrame({name: [] for name in ("method", "value", "std_error")})
    table = pandas.concat(frames, ignore_index=True)
    axes = [name for name in table.columns if name not in ("method", "value", "std_error")]
    return table[["method", *axes, "value", "std_error"]]


def _pandas() -> Any:
    return optional("pandas", "data", "A data frame")


def _texts(pandas: Any, texts: list[Any]) -> Any:
    """Return texts as a column of Python strings: Arrow's, the default, refuses a lone surrogate."""
    return pandas.Series(texts, dtype=object)


def _column(pandas: Any, values: list[Any]) -> Any:
    return _texts(pandas, values) if any(isinstance(value, str) for value in values) else pandas.Series(values)
