"""Rows of a data file as mappings: csv, tsv, jsonl, parquet, and folders of the `datasets` library."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, cast

from pellucid.core.errors import FileError, optional

Row = Mapping[str, Any]
LONGEST_CELL = 1 << 27


def read_rows(path: Path) -> Iterator[Row]:
    """Yield the rows of a data file in order, each a mapping from column to value; nothing is guessed.

    Args:
        path: a file ending in .csv, .tsv, .jsonl (or .ndjson), .json (a list of objects) or .parquet, or a folder that
            `datasets.Dataset.save_to_disk` wrote.

    Raises:
        FileError: the file is missing, of another kind, not UTF-8, half written or damaged; with the line.
        MissingExtra: the package that reads it is not installed.
    """
    if path.is_dir():
        yield from _datasets(path)
        return
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        known = ", ".join(READERS)
        raise FileError(f"The data file {str(path)!r} ends in none of {known}; convert it, or give a datasets folder.")
    if not path.is_file():
        raise FileError(f"The data file {str(path)!r} does not exist; check its path.")
    try:
        yield from reader(path)
    except UnicodeDecodeError as error:
        raise FileError(
            f"The data file {str(path)!r} is not UTF-8 text ({error.reason} at byte {error.start}); convert it."
        ) from None
    except OSError as error:
        raise FileError(f"The data file {str(path)!r} cannot be read ({error.strerror or error}).") from None


def _separated(path: Path, delimiter: str) -> Iterator[Row]:
    """Yield the rows of a file with a header line; a row with more or fewer cells than the header is an error."""
    csv.field_size_limit(LONGEST_CELL)
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file, delimiter=delimiter, strict=True)
        try:
            head = next(reader, [])
            for cells in reader:
                if not cells:
                    continue
                if len(cells) != len(head):
                    raise FileError(
                        f"Line {reader.line_num} of {str(path)!r} has {len(cells)} cells under a header of "
                        f"{len(head)}; it was cut or holds an unquoted {delimiter!r}, so correct it."
                    )
                yield dict(zip(head, cells, strict=True))
        except csv.Error as error:
            raise FileError(
                f"Line {reader.line_num} of {str(path)!r} is not valid csv ({error}); it was cut or is not quoted, so "
                "correct it."
            ) from None


def _csv(path: Path) -> Iterator[Row]:
    return _separated(path, ",")


def _tsv(path: Path) -> Iterator[Row]:
    return _separated(path, "\t")


def _jsonl(path: Path) -> Iterator[Row]:
    with path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                yield _object(line, f"Line {number} of {str(path)!r}")


def _json(path: Path) -> Iterator[Row]:
    rows = _parsed(path.read_text(encoding="utf-8-sig"), f"The data file {str(path)!r}")
    if not isinstance(rows, list):
        raise FileError(f"The data file {str(path)!r} holds no list; write a JSON list of objects, or jsonl.")
    for number, row in enumerate(cast("list[Any]", rows), 1):
        if not isinstance(row, dict):
            raise FileError(f"Item {number} of {str(path)!r} is no object; write one object per example.")
        yield cast("Row", row)


def _object(text: str, name: str) -> Row:
    row = _parsed(text, name)
    if not isinstance(row, dict):
        raise FileError(f"{name} is no JSON object; write one object with its columns per line.")
    return cast("Row", row)


def _parsed(text: str, name: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise FileError(f"{name} is not valid JSON ({error}); it was cut or changed, so correct it.") from None


def _parquet(path: Path) -> Iterator[Row]:
    parquet: Any = optional("pyarrow.parquet", "data", "Reading parquet")
    arrow: Any = optional("pyarrow", "data", "Reading parquet")
    try:
        with parquet.ParquetFile(path) as file:
            for batch in file.iter_batches():
                yield from batch.to_pylist()
    except arrow.ArrowException as error:
        reason = str(error).split("\n")[0]
        raise FileError(f"The data file {str(path)!r} is no whole parquet file ({reason}); write it again.") from None


def _datasets(path: Path) -> Iterator[Row]:
    datasets: Any = optional("datasets", "data", "Reading a datasets folder")
    try:
        loaded = datasets.load_from_disk(str(path))
    except Exception as error:  # the library raises errors of many kinds for a damaged folder
        reason = str(error).split("\n")[0]
        raise FileError(
            f"The folder {str(path)!r} is no saved data set ({reason}); write it by save_to_disk."
        ) from None
    if isinstance(loaded, datasets.DatasetDict):
        raise FileError(
            f"The folder {str(path)!r} holds the splits {sorted(loaded)}; give the folder of one, such as "
            f"{str(path / min(loaded))!r}."
        )
    yield from loaded


READERS: dict[str, Callable[[Path], Iterator[Row]]] = {
    ".csv": _csv, ".tsv": _tsv, ".jsonl": _jsonl, ".ndjson": _jsonl, ".json": _json, ".parquet": _parquet,
}  # fmt: skip
