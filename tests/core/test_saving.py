"""A saved result comes back equal, bit for bit, and is on disk whole or not at all."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pellucid.core import encoding, saving
from pellucid.core.errors import FileError, InputError, PellucidError, ResourceError
from pellucid.core.results import (
    KINDS,
    Evidence,
    Examples,
    Explanation,
    Graph,
    Learned,
    Provenance,
    Result,
    Scores,
    Table,
    Text,
    WeightEdit,
)
from pellucid.core.targets import Target
from pellucid.core.tokens import Tokens, Units

HOSTILE = "a\ud800b \x00\x1b[31m</script>\u202e\u05d0 \U0001f600"
TOKENS = Tokens(
    (1, 2, 3), ("<s>", HOSTILE, ""), (True, False, False), HOSTILE, ((0, 0), (0, 3), (3, 3)), ("", "u", "u")
)
PROVENANCE = Provenance(
    method="occlusion",
    parameters={
        "steps": 32,
        "rate": 0.1,
        "nan": float("nan"),
        "infinities": (float("inf"), -float("inf")),
        "none": None,
        "nested": {"list": [1, (2, "x")], "kind": "not a result"},
        "by_id": {1: "one", (2, 3): "pair"},
        "$odd": True,
        "target": Target.continuation([4, 5], contrast="\ud83d\ude00"),
        "array": np.array([1.5, np.nan], np.float32),
        "split": "\ud83d" + "\ude00",
        "single": np.float32(0.1),
    },
    model="tiny",
    edits=("blocks.0.attn.out zero",),
    seed=0,
    versions={"numpy": "2"},
    seconds=0.25,
    rows=("FAP-1",),
)
EVIDENCE = Evidence(
    "deletion", "drops faster", {"area": 0.3, "gap": float("nan")}, {"x": (0.0, 1.0), "y": (1.0, -0.0)}, True
)
SPECIAL = np.array([[np.nan, np.inf, -np.inf], [-0.0, 5e-324, 0.1]])


def every_kind() -> list[Result]:
    scores = Scores(
        "t",
        PROVENANCE,
        (EVIDENCE,),
        SPECIAL,
        ("unit", "target"),
        {"target": ("a", HOSTILE, "")},
        "logit",
        std_error=np.full((2, 3), 0.1, np.float32),
        tokens=TOKENS,
        units=Units("token", ((0, 1), (1, 3)), ("<s>", HOSTILE)),
    )
    kinds: list[Result] = [
        scores,
        Graph(
            "g",
            nodes=({"id": "a", "kind": "head", "layer": 1}, {"id": 2}),
            sources=np.array([0]),
            targets=np.array([1]),
            weights=np.array([0.5], np.float16),
            tokens=TOKENS,
        ),
        Table("t", columns=("a", HOSTILE), rows=((1, "x"), (None, float("inf")), ((1, 2), [3]))),
        Text("x", text=HOSTILE),
        Examples("e", items=({"text": HOSTILE, "n": 1},), values=np.array([1.0])),
        Learned(
            "l",
            tensors={"a/b": np.eye(2, dtype=np.float32), HOSTILE: np.array(3), "empty": np.zeros((0, 4))},
            apply="lens",
            settings={"x": (1,)},
        ),
        WeightEdit("w", deltas={"lm_head.weight": np.asfortranarray(np.arange(6.0).reshape(2, 3))}, weights_hash="ab"),
    ]
    return [
        *kinds,
        Explanation(
            "q",
            PROVENANCE,
            (EVIDENCE,),
            tuple(kinds),
            TOKENS,
            "Paris",
            ((" Paris", 0.5), (HOSTILE, float("nan"))),
            "…",
            ("note",),
        ),
    ]


def assert_same(a: Any, b: Any) -> None:
    """Compare exactly: types, dtypes, bits of arrays, NaN equal to NaN, -0.0 different from 0.0."""
    if isinstance(a, np.generic):
        a = a.item()
    assert type(a) is type(b), (a, b)
    if isinstance(a, np.ndarray):
        assert a.dtype == b.dtype
        assert a.shape == b.shape
        assert a.tobytes() == b.tobytes()
    elif dataclasses.is_dataclass(a):
        for field in dataclasses.fields(a):
            assert_same(getattr(a, field.name), getattr(b, field.name))
    elif isinstance(a, dict):
        assert list(a) == list(b)
        for key in a:
            assert_same(a[key], b[key])
    elif isinstance(a, list | tuple):
        assert len(a) == len(b)
        for x, y in zip(a, b, strict=True):
            assert_same(x, y)
    else:
        assert repr(a) == repr(b)


def test_the_samples_cover_every_kind() -> None:
    assert {type(result).__name__ for result in every_kind()} == set(KINDS)


@pytest.mark.parametrize("result", every_kind(), ids=lambda r: type(r).__name__)
def test_a_saved_result_comes_back_equal_bit_for_bit(result: Result, tmp_path: Path) -> None:
    folder = saving.save(result, tmp_path / "r")
    assert sorted(p.name for p in folder.iterdir()) == ["result.json", "tensors.safetensors"]
    assert_same(result, saving.open_result(folder))
    strict = json.loads((folder / "result.json").read_text("ascii"), parse_constant=lambda c: pytest.fail(c))
    assert strict["schema"] == saving.SCHEMA


@pytest.mark.parametrize("result", every_kind(), ids=lambda r: type(r).__name__)
def test_a_result_as_one_json_text_comes_back_equal(result: Result) -> None:
    text = encoding.as_json(result)
    json.loads(text, parse_constant=lambda c: pytest.fail(c))
    assert_same(result, encoding.from_json(text))


def test_nan_is_null_and_its_place_in_json() -> None:
    array = json.loads(encoding.as_json(Scores(values=SPECIAL, axes=("layer", "head"))))["values"]["$array"]
    assert array["values"] == [[None, None, None], [-0.0, 5e-324, 0.1]]
    assert (array["nan"], array["inf"], array["-inf"]) == ([0], [1], [2])


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "int8", "int64", "uint8", "bool", ">f8"])
def test_dtypes_survive(dtype: str, tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 2, (3, 4)).astype(dtype)[:, ::2]
    opened = saving.open_result(saving.save(Scores(values=values, axes=("layer", "head")), tmp_path / "r"))
    assert isinstance(opened, Scores)
    assert opened.values.dtype == values.dtype.newbyteorder("=")
    np.testing.assert_array_equal(opened.values, values)


def test_nan_payload_bits_survive(tmp_path: Path) -> None:
    values = np.array([0x7FF8000000000123, 0xFFF0000000000001], dtype=np.uint64).view(np.float64)
    opened = saving.open_result(saving.save(Scores(values=values), tmp_path / "r"))
    assert isinstance(opened, Scores)
    assert opened.values.tobytes() == values.tobytes()


def test_an_unknown_parameter_is_kept_as_its_description(tmp_path: Path) -> None:
    result = Text(provenance=Provenance(parameters={"of": dict.fromkeys, "words": np.array(["a"])}))
    parameters = saving.open_result(saving.save(result, tmp_path / "r")).provenance.parameters
    assert "fromkeys" in parameters["of"]
    assert "array" in parameters["words"]


def test_values_that_are_no_numbers_are_refused_and_leave_nothing(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="dtype"):
        saving.save(Scores(values=np.array(["a"])), tmp_path / "r")
    assert list(tmp_path.iterdir()) == []


def test_saving_again_replaces_the_older_result(tmp_path: Path) -> None:
    saving.save(Text(text="old"), tmp_path / "r")
    saving.save(Text(text="new"), tmp_path / "r")
    assert saving.open_result(tmp_path / "r") == Text(text="new")
    assert [p.name for p in tmp_path.iterdir()] == ["r"]


@pytest.mark.parametrize("occupied", ["file", "folder"])
def test_saving_never_destroys_something_else(occupied: str, tmp_path: Path) -> None:
    path = tmp_path / "thesis"
    if occupied == "folder":
        path.mkdir()
        (path / "chapter.txt").write_text("work")
    else:
        path.write_text("work")
    with pytest.raises(FileError, match="not a saved result"):
        saving.save(Text(text="x"), path)
    assert (path / "chapter.txt" if occupied == "folder" else path).read_text() == "work"


def break_json(folder: Path) -> None:
    (folder / "result.json").write_text((folder / "result.json").read_text()[:-30])


def newer(folder: Path) -> None:
    text = (folder / "result.json").read_text().replace('"schema": 1', '"schema": 99')
    (folder / "result.json").write_text(text)


def rename_field(folder: Path) -> None:
    (folder / "result.json").write_text((folder / "result.json").read_text().replace('"sign"', '"singe"'))


def rename_kind(folder: Path) -> None:
    (folder / "result.json").write_text((folder / "result.json").read_text().replace('"Scores"', '"Score"'))


def truncate(folder: Path) -> None:
    os.truncate(folder / "tensors.safetensors", 40)


def flip(folder: Path) -> None:
    content = bytearray((folder / "tensors.safetensors").read_bytes())
    content[-1] ^= 1
    (folder / "tensors.safetensors").write_bytes(content)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (break_json, "not valid JSON"),
        (newer, "update pellucid"),
        (rename_field, "no field 'singe'"),
        (rename_kind, "did you mean 'Scores'"),
        (truncate, "cut or changed"),
        (flip, "cut or changed"),
        (lambda f: (f / "tensors.safetensors").unlink(), "lacks"),
        (lambda f: (f / "result.json").unlink(), "lacks"),
        (lambda f: (f / "result.json").write_text("[NaN]"), "not valid JSON"),
        (lambda f: (f / "result.json").write_text('{"a": 1}'), "no saved pellucid result"),
        (lambda f: (f / "result.json").write_bytes(b"\xff\xfe\x00"), "not valid JSON"),
        (lambda f: (f / "result.json").write_text("[" * 100_000), "not valid JSON"),
    ],
)
def test_damage_is_a_file_error_that_says_what_is_wrong(damage: Any, words: str, tmp_path: Path) -> None:
    folder = saving.save(Scores(values=np.arange(5.0)), tmp_path / "r")
    damage(folder)
    with pytest.raises(FileError, match=words):
        saving.open_result(folder)


def test_a_missing_result_is_a_file_error(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="No saved result"):
        saving.open_result(tmp_path / "none")


def test_a_field_that_an_older_version_did_not_write_has_its_default(tmp_path: Path) -> None:
    folder = saving.save(Text(text="x"), tmp_path / "r")
    document = json.loads((folder / "result.json").read_text())
    del document["result"]["evidence"]
    (folder / "result.json").write_text(json.dumps(document))
    assert saving.open_result(folder) == Text(text="x")


LIMITED = """
    import resource, sys
    import numpy as np
    from pellucid.core import saving
    from pellucid.core.errors import ResourceError
    from pellucid.core.results import Scores
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, resource.RLIM_INFINITY))
    for action in (lambda: saving.save(Scores(values=np.zeros(100_000)), sys.argv[1]),
                   lambda: saving.write_text(sys.argv[2], "x" * 100_000)):
        try:
            action()
        except ResourceError as error:
            print(error)
"""


def test_no_space_is_a_sentence_and_keeps_the_older_files(tmp_path: Path) -> None:
    saving.save(Text(text="old"), tmp_path / "r")
    saving.write_text(tmp_path / "page.html", "old")
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(LIMITED), tmp_path / "r", tmp_path / "page.html"],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"PYTHONPATH": package_path()},
    )
    assert done.stdout.count("no space left") == 2, done.stdout + done.stderr
    assert saving.open_result(tmp_path / "r") == Text(text="old")
    assert (tmp_path / "page.html").read_text() == "old"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["page.html", "r"]


@pytest.mark.parametrize("interrupted", ["fsync", "rename", "replace"])
@pytest.mark.parametrize("call", [1, 2, 3, 4])
@pytest.mark.parametrize("older", [True, False])
def test_ctrl_c_at_any_step_leaves_the_old_or_the_new_result(
    interrupted: str, call: int, older: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if older:
        saving.save(Text(text="old"), tmp_path / "r")
        saving.write_text(tmp_path / "t", "old")
    owner: Any = os if interrupted == "fsync" else Path
    original, calls = getattr(owner, interrupted), 0

    def stop(*args: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == call:
            raise KeyboardInterrupt
        return original(*args)

    monkeypatch.setattr(owner, interrupted, stop)
    outcomes = []
    for action in (
        lambda: saving.save(Text(text="new"), tmp_path / "r"),
        lambda: saving.write_text(tmp_path / "t", "new"),
    ):
        calls = 0
        try:
            action()
            outcomes.append("new")
        except KeyboardInterrupt:
            outcomes.append("stopped")
    monkeypatch.undo()
    assert not [p for p in tmp_path.iterdir() if p.name.endswith(".tmp")]
    assert {p.name for p in tmp_path.iterdir()} <= {"r", "t"}
    if older:
        opened = saving.open_result(tmp_path / "r")
        assert isinstance(opened, Text)
        assert opened.text in ({"new"} if outcomes[0] == "new" else {"old", "new"})
        assert (tmp_path / "t").read_text() in ({"new"} if outcomes[1] == "new" else {"old", "new"})


def test_a_swap_that_a_kill_left_half_way_is_finished(tmp_path: Path) -> None:
    saving.save(Text(text="old"), tmp_path / "r")
    (tmp_path / "r").rename(saving._aside(tmp_path / "r"))
    assert saving.open_result(tmp_path / "r") == Text(text="old")
    saving.save(Text(text="new"), tmp_path / "r")
    assert saving.open_result(tmp_path / "r") == Text(text="new")
    assert [p.name for p in tmp_path.iterdir()] == ["r"]


def test_text_is_written_whole_as_utf_8_through_links_and_to_devices(tmp_path: Path) -> None:
    path = tmp_path / "new" / "page.html"
    saving.write_text(path, HOSTILE)
    assert path.read_text("utf-8") == HOSTILE.replace("\ud800", "?")
    (tmp_path / "link").symlink_to(path)
    saving.write_text(tmp_path / "link", "x")
    assert (tmp_path / "link").is_symlink()
    assert path.read_text() == "x"
    saving.write_text("/dev/null", "x")
    assert Path("/dev/null").is_char_device()


def test_paths_that_cannot_be_written_are_sentences(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for path in (tmp_path / "file" / "r", tmp_path / ("n" * 300), "a\0b"):
        with pytest.raises(FileError):
            saving.save(Text(text="x"), path)
        with pytest.raises(FileError):
            saving.write_text(path, "x")
    with pytest.raises(FileError, match="cannot be written"):
        saving.write_text(tmp_path, "x")


def test_only_results_are_saved(tmp_path: Path) -> None:
    with pytest.raises(PellucidError):
        saving.save(Result(), tmp_path / "r")
    assert issubclass(ResourceError, PellucidError)


def package_path() -> str:
    return str(Path(saving.__file__).parents[2])
