"""`pellucid evaluate` from the outside: a run, its going on, its page and its errors."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pellucid.cli.app import app
from pellucid.cli.evaluate import duration

ROWS = "label,sentence\n1,The acting was wonderful.\n0,The soup was dreadful.\n"
ASKED = ("evaluate", "--model", "zoo:tiny-classifier", "--data", "data.csv", "--methods", "occlusion,lime", "--metrics",
         "comprehensiveness,log_odds", "--set", "lime.samples=16", "--measure", "prob")  # fmt: skip


def call(*arguments: str) -> tuple[int, str, str]:
    done = CliRunner().invoke(app, list(arguments))
    return done.exit_code, done.stdout, done.stderr


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data.csv").write_text(ROWS, encoding="utf-8")
    return tmp_path


def test_a_run_and_its_going_on(folder: Path) -> None:
    status, out, err = call(*ASKED, "--json", "--html", "page.html", "--save", "table")
    assert status == 0, err
    document = json.loads(out)
    assert document["kind"] == "Table"
    assert [row[:2] for row in document["rows"]] == [
        ["occlusion", "comprehensiveness"], ["occlusion", "log_odds"], ["lime", "comprehensiveness"],
        ["lime", "log_odds"],
    ]  # fmt: skip
    assert "12 of 12 done" in err
    assert (folder / "page.html").read_text(encoding="utf-8").startswith("<!doctype html>")
    assert (folder / "table" / "result.json").is_file()
    before = (folder / "data.csv.evaluation").read_bytes()
    status, again, _ = call(*ASKED, "--json")
    assert json.loads(again)["rows"] == document["rows"]
    assert (folder / "data.csv.evaluation").read_bytes() == before
    status, shown, _ = call(*ASKED, "--tests")
    assert status == 0
    assert "(chance)" in shown
    assert "p (Holm)" in shown


BAD = (
    (("--set", "lime=16"), "has no '.' between two parts"),
    (("--set", "lime.sample=16"), r"lime has no parameter 'sample' \(did you mean 'samples'\?\)"),
    (("--set", "lime.samples=few"), "samples='few'"),
    (("--column", "text"), "has no '=' between two parts"),
    (("--column", "text=txt"), "has no column 'txt'"),
    (("--metrics", "comprehensivenes"), "did you mean 'comprehensiveness'"),
    (("--data", "absent.csv"), "does not exist"),
    (("--measure", "odds"), "measure must be"),
)


@pytest.mark.parametrize(("more", "said"), BAD)
def test_mistakes_are_one_line(folder: Path, more: tuple[str, ...], said: str) -> None:
    status, _, err = call(*ASKED, *more)
    assert status == 2
    assert re.search(said, err.splitlines()[-1]), err


def test_durations_in_words() -> None:
    assert [duration(s) for s in (4.4, 200, 7500, float("nan"))] == [
        "4 s", "3 min 20 s", "2 h 5 min", "an unknown time",
    ]  # fmt: skip
