"""One data set in every format is the same examples, and a bad file is refused in one sentence."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pellucid.core.errors import FileError, InputError
from pellucid.evaluate.over_data import Example, read_examples

ROWS: list[dict[str, Any]] = [
    {"sentence": 'A fine film, "really".\nTwo lines', "label": 1, "rationale": [[2, 6]], "target": None},
    {"sentence": "שלום عالم 👩‍👩‍👧 <script>alert(1)</script>", "label": 0, "rationale": None, "target": " yes"},
    {"sentence": "dull; dull", "label": 1, "rationale": [[0, 4], [6, 10]], "target": "2"},
]
EXPECTED = (
    Example('A fine film, "really".\nTwo lines', None, 1, ((2, 6),), None),
    Example("שלום عالم 👩‍👩‍👧 <script>alert(1)</script>", None, 0, None, " yes"),
    Example("dull; dull", None, 1, ((0, 4), (6, 10)), 2),
)


def separated(path: Path, delimiter: str) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(ROWS[0]), delimiter=delimiter)
        writer.writeheader()
        for row in ROWS:
            writer.writerow({**row, "rationale": "" if row["rationale"] is None else json.dumps(row["rationale"])})


def parquet(path: Path) -> None:
    import pyarrow
    from pyarrow import parquet as files

    files.write_table(pyarrow.Table.from_pylist(ROWS), path)


def datasets(path: Path) -> None:
    from datasets import Dataset

    Dataset.from_list(ROWS).save_to_disk(str(path))


WRITERS: dict[str, Callable[[Path], object]] = {
    "data.csv": lambda path: separated(path, ","),
    "data.tsv": lambda path: separated(path, "\t"),
    "data.jsonl": lambda path: path.write_text("\n".join(map(json.dumps, ROWS)) + "\n", encoding="utf-8"),
    "data.json": lambda path: path.write_text(json.dumps(ROWS), encoding="utf-8"),
    "data.parquet": parquet,
    "folder": datasets,
}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("name", WRITERS)
def test_every_format_gives_the_same_examples(tmp_path: Path, name: str, capfd: pytest.CaptureFixture[str]) -> None:
    if name in ("data.parquet", "folder"):
        pytest.importorskip("pyarrow" if name == "data.parquet" else "datasets")
    WRITERS[name](tmp_path / name)
    assert read_examples(tmp_path / name) == EXPECTED
    assert read_examples(tmp_path / name, limit=2) == EXPECTED[:2]


def test_rows_at_hand_are_examples_too() -> None:
    assert read_examples(ROWS) == EXPECTED
    assert read_examples(["one", "two"]) == (Example("one"), Example("two"))
    assert read_examples(EXPECTED) == EXPECTED
    [chat] = read_examples([{"text": [{"role": "user", "content": "Hello"}]}])
    assert chat.prompt == [{"role": "user", "content": "Hello"}]


def test_pairs_and_named_columns() -> None:
    rows = [{"premise": "It rains.", "hypothesis": "It is wet.", "gold": "entailment", "why": ["rains"]}]
    [found] = read_examples(rows, columns={"rationale": "why"})
    assert found == Example("It rains.", "It is wet.", "entailment", ("rains",))
    assert found.prompt == ("It rains.", "It is wet.")


BAD: dict[str, tuple[str, str]] = {
    "cut.csv": ('text,label\n"a film",1\n"a half', "Line 3 .* not valid csv"),
    "short.csv": ("text,label\na film,1\nanother\n", "Line 3 .* has 1 cells under a header of 2"),
    "unquoted.csv": ("text,label\na, b,1\n", "Line 2 .* has 3 cells"),
    "cut.jsonl": ('{"text": "a"}\n{"text": "b', "Line 2 .* not valid JSON"),
    "list.jsonl": ("[1]\n", "Line 1 .* no JSON object"),
    "object.json": ('{"text": "a"}', "holds no list"),
    "cut.json": ('[{"text": "a"}', "not valid JSON"),
    "cut.parquet": ("PAR1 and no more", "no whole parquet file"),
    "other.txt": ("a", "ends in none of"),
    "empty.csv": ("text,label\n", "holds no example"),
    "columns.csv": ("a,b\n1,2\n", "has the columns 'a', 'b', none of which"),
    "blank.csv": ("text\n  \n", "text that is not empty"),
    "mixed.jsonl": ('{"text": "a", "rationale": ["a", [0, 1]]}', "mixes"),
    "words.csv": ("text,rationale\na film,film\n", "as its rationale; write JSON"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_file_is_refused_in_one_sentence(tmp_path: Path, name: str) -> None:
    content, said = BAD[name]
    if name.endswith(".parquet"):
        pytest.importorskip("pyarrow")
    (tmp_path / name).write_text(content, encoding="utf-8")
    with pytest.raises((FileError, InputError), match=said) as caught:
        read_examples(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_other_bad_data(tmp_path: Path) -> None:
    (tmp_path / "latin.csv").write_bytes("text\ncaf\xe9\n".encode("latin-1"))
    with pytest.raises(FileError, match="is not UTF-8"):
        read_examples(tmp_path / "latin.csv")
    with pytest.raises(FileError, match="does not exist"):
        read_examples(tmp_path / "absent.csv")
    with pytest.raises(InputError, match=r"no column 'txt' \(did you mean 'text'"):
        read_examples([{"text": "a"}], columns={"text": "txt"})
    with pytest.raises(InputError, match=r"no field 'rational' of an example \(did you mean 'rationale'"):
        read_examples([{"text": "a"}], columns={"rational": "text"})


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_folders_that_are_no_data_set(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    library = pytest.importorskip("datasets")
    with pytest.raises(FileError, match="no saved data set"):
        read_examples(tmp_path)
    part = library.Dataset.from_list(ROWS)
    library.DatasetDict({"train": part, "test": part}).save_to_disk(str(tmp_path / "splits"))
    with pytest.raises(FileError, match=r"holds the splits .*'test', 'train'"):
        read_examples(tmp_path / "splits")
