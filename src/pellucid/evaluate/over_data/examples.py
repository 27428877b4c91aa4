"""Examples of a data set: a text or a pair of texts with its label, what people marked, and what is to be explained."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import islice
from pathlib import Path
from typing import Any, cast

from pellucid.core.errors import FileError, InputError, did_you_mean
from pellucid.evaluate.over_data.formats import Row, read_rows

# The columns that are looked for where none is named, in this order.
COLUMNS: dict[str, tuple[str, ...]] = {
    "text": ("text", "sentence", "prompt", "premise", "question", "sentence1"),
    "pair": ("pair", "text_pair", "hypothesis", "sentence2"),
    "label": ("label", "gold", "class"),
    "rationale": ("rationale", "rationales", "highlight"),
    "target": ("target", "answer", "continuation"),
}


@dataclass(frozen=True)
class Example:
    """One item of a data set.

    `text` is a text or chat messages; `pair` the second text of a pair; `label` a class name or index; `rationale` what
    people marked, as (start, end) character ranges, words of the text, or one 0 or 1 per unit; `target` the text whose
    probability is explained, or a class.
    """

    text: Any
    pair: str | None = None
    label: int | str | None = None
    rationale: tuple[Any, ...] | None = None
    target: int | str | None = None

    @property
    def prompt(self) -> Any:
        """Return the prompt as `Subject.encode` takes it."""
        return self.text if self.pair is None else (self.text, self.pair)


def read_examples(
    data: str | Path | Iterable[Any], *, columns: Mapping[str, str] | None = None, limit: int | None = None
) -> tuple[Example, ...]:
    """Return the examples of a data file, or of rows that are at hand.

    Args:
        data: a file or folder as `read_rows` takes it, or a sequence of texts, mappings or `Example`s.
        columns: the name of the column per field of `Example`; others are looked for under their usual names
            (`COLUMNS`), and only the text must be there.
        limit: take the first so many.

    Raises:
        FileError: a file that cannot be read.
        InputError: a missing column, an empty text, a rationale that is none, or no example at all.
    """
    if isinstance(data, str | Path):
        rows, name = read_rows(Path(data)), f"{str(data)!r}"
    else:
        rows, name = iter(data), "the data"
    found = tuple(
        row if isinstance(row, Example) else _example(_row(row), dict(columns or {}), f"Example {number} of {name}")
        for number, row in enumerate(islice(rows, limit), 1)
    )
    if not found:
        raise InputError(f"{name[0].upper() + name[1:]} holds no example; give at least one.")
    return found


def _row(row: Any) -> Row:
    return cast("Row", row) if isinstance(row, Mapping) else {"text": row}


def _example(row: Row, columns: Mapping[str, str], name: str) -> Example:
    unknown = next((field for field in columns if field not in COLUMNS), None)
    if unknown is not None:
        raise InputError(f"There is no field {unknown!r} of an example{did_you_mean(unknown, COLUMNS)}.")
    taken = {field: _column(row, field, columns.get(field), name) for field in COLUMNS}
    text = _text(taken["text"], name)
    pair, target = (_none_if_empty(taken[field]) for field in ("pair", "target"))
    if pair is not None and not isinstance(pair, str):
        raise InputError(f"{name} has {pair!r} as its second text; give a text.")
    return Example(
        text, pair, _whole_number(taken["label"]), _rationale(taken["rationale"], name), _whole_number(target)
    )


def _column(row: Row, field: str, named: str | None, name: str) -> Any:
    if named is not None:
        if named not in row:
            raise InputError(
                f"{name} has no column {named!r}{did_you_mean(named, row)}; it has {', '.join(map(repr, row))}."
            )
        return row[named]
    usual = next((column for column in COLUMNS[field] if column in row), None)
    if usual is None and field == "text":
        raise InputError(
            f"{name} has the columns {', '.join(map(repr, row))}, none of which is {', '.join(COLUMNS['text'])}; name "
            "the one that holds the text."
        )
    return None if usual is None else row[usual]


def _text(value: Any, name: str) -> Any:
    if isinstance(value, str) and value.strip():
        return value
    messages = cast("list[Any]", value) if isinstance(value, list) and value else [None]
    if all(isinstance(one, dict) and {"role", "content"} <= set(cast("dict[str, Any]", one)) for one in messages):
        return messages
    raise InputError(f"{name} has {value!r:.60} as its text; give a text that is not empty, or chat messages.")


def _none_if_empty(value: Any) -> Any:
    return None if value == "" else value


def _whole_number(value: Any) -> int | str | None:
    """Return a label or class as a number where it is one, which csv files hold as text."""
    if value is None or value == "":
        return None
    if isinstance(value, str):
        return int(value) if value.isdecimal() and value.isascii() else value
    return int(value) if float(value).is_integer() else str(value)


def _rationale(value: Any, name: str) -> tuple[Any, ...] | None:
    """Return a rationale as a tuple of ranges, words or yes and no; a csv file holds it as JSON."""
    if value is None or (isinstance(value, str) and not value.strip()):
        return None
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            raise InputError(
                f'{name} has {value!r:.60} as its rationale; write JSON: [[start, end], ...], ["word", ...] or '
                "[0, 1, ...]."
            ) from None
    items = list(cast("Sequence[Any]", value)) if hasattr(value, "__len__") and not isinstance(value, Mapping) else None
    if items is None:
        raise InputError(f"{name} has {value!r:.60} as its rationale; give ranges, words, or one 0 or 1 per unit.")
    if not items:
        return None
    if all(isinstance(one, str) for one in items):
        return tuple(items)
    if all(_is_range(one) for one in items):
        return tuple((int(one[0]), int(one[1])) for one in items)
    if all(one in (0, 1) for one in items):
        return tuple(int(one) for one in items)
    raise InputError(f"{name} mixes {items!r:.60} in its rationale; give ranges, words, or one 0 or 1 per unit.")


def _is_range(value: Any) -> bool:
    return (
        hasattr(value, "__len__")
        and not isinstance(value, str)
        and len(value) == 2
        and all(hasattr(end, "__index__") for end in value)
    )


def as_plain(example: Example) -> dict[str, Any]:
    """Return an example as JSON values, without the fields it lacks."""
    return {f.name: value for f in fields(example) if (value := getattr(example, f.name)) is not None}


__all__ = ["COLUMNS", "Example", "FileError", "as_plain", "read_examples"]
