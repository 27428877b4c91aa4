from __future__ import annotations

import importlib
import inspect
import json
import subprocess
import sys
import warnings
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest

import pellucid
from pellucid.core import catalogue
from pellucid.core.catalogue import Entry, argument_docs, coverage, entries, find_entry, map_rows, read_source, summary
from pellucid.core.errors import FileError, InputError
from pellucid.core.metadata import metadata_of, method
from pellucid.core.params import NAMES, resolve
from pellucid.core.results import Scores
from pellucid.methods import find
from scripts.make_map import rows_of, standard_ids

SOURCE = '''
from typing import Literal

Order = Literal["up", "down"]

@method(rows=("FAP-1", "N-AT6"), paper="Li 2016", takes="prompt", produces="scores", axes=("unit",), needs=("scores",),
        cost="(units+1)*F")
def example(subject, prompt: PromptLike, *, order: Order = "up", steps: Annotated[int, between(1, 9)] = 4,
            corrupt: str, sizes: Sequence[int] = (1, 2), odd: Widget = Widget()) -> Scores:
    """Take parts away, one by one. The rest stays.

    Longer text.

    Args:
        subject: The model.
        order: Which way
            to go.
        steps: How many.

    Returns:
        Scores.
    """

def _private():
    pass
'''
OWN = [entry for entry in entries() if entry.kind != "view"]


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def test_a_source_is_read_without_importing_it(tmp_path: Path) -> None:
    entry = read_source(write(tmp_path, "example.py", SOURCE), "here.example", "family")
    assert entry is not None
    assert "here.example" not in sys.modules
    assert (entry.name, entry.kind, entry.family, entry.rows) == ("example", "method", "family", ("FAP-1", "N-AT6"))
    assert (entry.summary, entry.cost, entry.axes) == ("Take parts away, one by one.", "(units+1)*F", ("unit",))
    by_name = {p["name"]: p for p in entry.parameters}
    assert list(by_name) == ["subject", "prompt", "order", "steps", "corrupt", "sizes", "odd"]
    assert [n for n, p in by_name.items() if p["required"]] == ["subject", "prompt", "corrupt"]
    assert (by_name["order"]["choices"], by_name["order"]["default"]) == (["up", "down"], "up")
    assert by_name["order"]["doc"] == "Which way to go."
    assert [by_name["steps"][key] for key in ("kind", "min", "max", "default")] == ["int", 1, 9, 4]
    assert (by_name["sizes"]["kind"], by_name["sizes"]["default"]) == ("list", [1, 2])
    assert (by_name["odd"]["kind"], by_name["odd"]["default"]) == ("any", "Widget()")
    assert json.loads(json.dumps(entry.as_dict()))["parameters"][3]["max"] == 9


BAD_SOURCES = [
    ("def example(:", "is not valid Python"),
    (SOURCE.replace('("FAP-1", "N-AT6")', "ROWS"), "rows=ROWS, which is no literal"),
    (SOURCE.replace("rows=", "row="), "passes 'row' to its decorator"),
    (SOURCE + "\ndef second():\n    pass\n", "has the public functions example, second"),
]


@pytest.mark.parametrize(("text", "message"), BAD_SOURCES, ids=range(len(BAD_SOURCES)))
def test_a_broken_source_is_named(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(FileError, match=message) as caught:
        read_source(write(tmp_path, "example.py", text), "here.example", "family")
    assert "example.py" in str(caught.value)


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty package in place of the project's own."""
    root = tmp_path / "pellucid"
    for folder in ("methods/one", "methods/two", "evaluate", "studies"):
        (root / folder).mkdir(parents=True)
    monkeypatch.setattr(catalogue, "PACKAGE", root)
    monkeypatch.setattr(catalogue, "VIEWS", root / "views.json")
    monkeypatch.setattr(catalogue, "entry_points", lambda group: [])
    return root


def test_the_directory_is_the_registry(package: Path) -> None:
    write(package, "methods/one/example.py", SOURCE)
    write(package, "methods/one/__init__.py", "")
    write(package, "methods/one/_shared.py", "def anything(): pass")
    write(
        package,
        "evaluate/measure.py",
        SOURCE.replace("@method(", '@metric(better="lower", ').replace("example(", "measure("),
    )
    write(package, "evaluate/bench.py", "def table(): pass")
    write(package, "views.json", '[{"name": "lens_view", "summary": "Show a lens.", "rows": ["ATT-1"]}]')
    found = {entry.name: (entry.kind, entry.family, entry.module) for entry in entries()}
    assert found == {
        "example": ("method", "one", "pellucid.methods.one.example"),
        "measure": ("metric", "evaluate", "pellucid.evaluate.measure"),
        "lens_view": ("view", "web", ""),
    }
    delivered = {row["id"]: row["delivered_by"] for row in coverage() if row["delivered_by"]}
    assert delivered == {"ATT-1": ["lens_view"], "FAP-1": ["example", "measure"], "N-AT6": ["example", "measure"]}
    assert find_entry("example") is not None
    assert find_entry("absent") is None


def test_a_changed_file_is_read_again(package: Path) -> None:
    path = write(package, "methods/one/example.py", SOURCE)
    assert entries()[0].paper == "Li 2016"
    path.write_text(SOURCE.replace("Li 2016", "Li 2017"), encoding="utf-8")
    import os

    os.utime(path, ns=(1, 1))
    assert entries()[0].paper == "Li 2017"


BREAKS = [
    ({"methods/one/other.py": SOURCE}, "other.py defines 'example'; name the file and its function alike"),
    ({"methods/one/example.py": SOURCE, "methods/two/example.py": SOURCE}, "one/example.py and .*two/example.py"),
    ({"methods/one/example.py": "def example(): pass"}, "one/example.py has no function under a decorator"),
    ({"studies/example.py": SOURCE}, "decorated as a method; files in studies/ use @study"),
]


@pytest.mark.parametrize(("files", "message"), BREAKS, ids=range(len(BREAKS)))
def test_a_broken_registry_names_the_file(package: Path, files: dict[str, str], message: str) -> None:
    for name, text in files.items():
        write(package, name, text)
    with pytest.raises(FileError, match=message):
        entries()


def point(value: str) -> EntryPoint:
    return EntryPoint(name="any", value=value, group="pellucid.methods")


def test_methods_of_other_packages_are_read_without_importing_them(
    package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "site" / "other_package"
    other.mkdir(parents=True)
    write(other, "__init__.py", "raise RuntimeError('imported')")
    write(other, "deep.py", SOURCE + "\ndef helper(): pass\n")
    monkeypatch.syspath_prepend(str(other.parent))
    points = [point("other_package.deep:example")]
    monkeypatch.setattr(catalogue, "entry_points", lambda group: points)
    [entry] = entries()
    assert (entry.name, entry.module, entry.family) == ("example", "other_package.deep", "other_package")
    points.append(point("other_package.absent:nothing"))
    with pytest.warns(UserWarning, match="methods of the package 'other_package.absent' are left out: the source of"):
        assert [e.name for e in entries()] == ["example"]


def test_views_and_methods_share_one_name_space(package: Path) -> None:
    write(package, "methods/one/example.py", SOURCE)
    write(package, "views.json", '[{"name": "example", "summary": "Show.", "rows": []}]')
    with pytest.raises(FileError, match="The name 'example' is taken twice"):
        entries()


@pytest.mark.parametrize("entry", OWN, ids=lambda entry: entry.name)
def test_the_listing_equals_what_importing_gives(entry: Entry) -> None:
    function = getattr(importlib.import_module(entry.module), entry.name)
    metadata = metadata_of(function)
    for field in (
        "name",
        "kind",
        "rows",
        "paper",
        "takes",
        "produces",
        "axes",
        "needs",
        "cost",
        "better",
        "chance",
        "patent",
    ):
        assert getattr(entry, field) == getattr(metadata, field), field
    parameters = inspect.signature(function).parameters
    assert [p["name"] for p in entry.parameters] == list(parameters)
    for described in entry.parameters:
        default = parameters[described["name"]].default
        assert described["required"] is (default is inspect.Parameter.empty)
        if not described["required"] and isinstance(default, str | int | float | bool | None):
            assert described["default"] == default
    assert entry.summary


@pytest.mark.parametrize("entry", OWN, ids=lambda entry: entry.name)
def test_annotations_come_from_the_closed_list(entry: Entry) -> None:
    for described in entry.parameters:
        if described["kind"] == "any":
            assert described["annotation"] in ("Any", "object"), f"{described['annotation']!r} is not in params.NAMES"


@pytest.mark.parametrize("entry", OWN, ids=lambda entry: entry.name)
def test_rows_are_on_the_map(entry: Entry) -> None:
    assert set(entry.rows) <= {row["id"] for row in map_rows()}


def test_every_name_of_the_closed_list_resolves() -> None:
    assert all(resolve(name) == NAMES[name] for name in NAMES)


def test_the_map_has_every_row_once() -> None:
    rows = map_rows()
    ids = [row["id"] for row in rows]
    assert len(ids) == len(set(ids)) == 357
    assert {"FAP-1", "ATT-18", "EVE-3", "TRD-2", "N-CI9", "N-BM8", "STD-deeplift"} <= set(ids)
    assert all(set(row) == {"id", "technique", "paper", "section", "reason"} and row["technique"] for row in rows)
    assert next(row for row in rows if row["id"] == "FAG-3")["technique"] == "integrated gradients"
    assert [row["id"] for row in rows if row["reason"]] == ["FAD-3", "ATT-15"]


def test_a_taxonomy_becomes_rows() -> None:
    text = """
## 4. List
Columns: id · technique
### 4.1 First
| id | technique | definition | paper | implementation | in |
|---|---|---|---|---|---|
| AB-1 | one thing | x | Someone 2020 | — | A |

**More**
| id | technique | definition | paper | implementation | in |
|---|---|---|---|---|---|
| N-AB2 | two; things | y | Other 2021; Third 2022 | — | A |
### 5.9 Benchmarks
| id | benchmark | score | paper | implementation | pr |
|---|---|---|---|---|---|
| N-BM1 | track | z | Many 2025 | — | 1 |

## 6. Standard methods
DeepThing; Smooth/VarThing (captum ✓) · V-usable (x) / PVI · one and two parts · ROAR / remove (a; b).
"""
    assert [(r["id"], r["technique"], r["paper"], r["section"]) for r in rows_of(text)] == [
        ("AB-1", "one thing", "Someone 2020", "4.1"),
        ("N-AB2", "two; things", "Other 2021; Third 2022", "4.1"),
        ("N-BM1", "track", "Many 2025", "5.9"),
        ("STD-deepthing", "DeepThing", "", "6"),
        ("STD-smooth", "Smooth", "", "6"),
        ("STD-varthing", "VarThing", "", "6"),
        ("STD-v-usable", "V-usable  / PVI", "", "6"),
        ("STD-one", "one", "", "6"),
        ("STD-two-parts", "two parts", "", "6"),
        ("STD-roar", "ROAR / remove", "", "6"),
    ]
    assert standard_ids("layer-gradient×activation") == [
        ("STD-layer-gradient-x-activation", "layer-gradient×activation")
    ]


def test_docstrings_are_cut_where_they_should_be() -> None:
    assert summary("Do it\n    well. Then rest.\n\nMore.") == "Do it well."
    assert summary("Do it\n\nMore. Of it.") == "Do it"
    text = "Do.\n\nArgs:\n    a: One: two.\n    b (int): Three\n        four.\n\nReturns:\n    c: No."
    assert argument_docs(text) == {"a": "One: two.", "b": "Three four."}


def test_modules_of_that_name_are_callable_whatever_came_first() -> None:
    assert [m["name"] for m in pellucid.methods()] == [e.name for e in entries()]
    importlib.import_module("pellucid.methods")
    assert callable(pellucid.methods)
    assert pellucid.methods.run is pellucid.run  # type: ignore[attr-defined]
    assert list(inspect.signature(pellucid.methods).parameters) == []
    assert isinstance(pellucid.methods()[:1], list)


WITHOUT_TORCH = ["pellucid.methods()", "pellucid.open", "import pellucid.methods; pellucid.methods()"]


@pytest.mark.parametrize("use", WITHOUT_TORCH)
def test_torch_stays_out(use: str) -> None:
    code = f"import pellucid, sys\n{use}\nprint('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_run_finds_imports_and_fills_in_a_preset(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, Any] = {}

    @method(rows=(), paper="", takes="corpus", produces="scores")
    def example(corpus: Any, *, target: Any = None, steps: int = 3, reduce: str = "l1") -> Scores:
        seen.update(target=target, steps=steps, reduce=reduce)
        return Scores()

    monkeypatch.setattr("pellucid.methods.function", lambda name: example)
    result = pellucid.run("example", ["text"], preset="captum", reduce="l2")
    assert result.provenance.method == "example"
    assert (seen["steps"], seen["reduce"]) == (50, "l2")
    assert (seen["target"].what, seen["target"].measure) == (None, "log_prob")
    pellucid.run("example", ["text"], preset="ferret", target=pellucid.Target(5, measure="prob"))
    assert (seen["target"].what, seen["target"].measure) == (5, "prob")
    pellucid.run("example", ["text"])
    assert (seen["target"], seen["steps"], seen["reduce"]) == (None, 3, "l1")


def test_an_unknown_method_is_refused() -> None:
    with warnings.catch_warnings(), pytest.raises(InputError, match="There is no method 'integrated_gradint'"):
        find("integrated_gradint")
    for odd in ("", "../x", "__init__", "a b"):
        with pytest.raises(InputError, match="There is no method"):
            find(odd)
