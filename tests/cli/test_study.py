"""`pellucid study`: its list, its help, one study from end to end, and errors on one line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

import pellucid
from pellucid.cli.app import app
from pellucid.core.catalogue import entries


def call(*arguments: str) -> tuple[int, str, str]:
    done = CliRunner().invoke(app, ["study", *arguments])
    return done.exit_code, done.stdout, done.stderr


def test_every_study_is_listed_and_has_help() -> None:
    names = [entry.name for entry in entries() if entry.kind == "study"]
    assert len(names) >= 5
    listed = call()[1]
    for name in names:
        assert name in listed
        status, page, _ = call(name, "--help")
        assert status == 0
        assert "--pairs" in page
        assert "--out" in page


def test_a_study_writes_its_page_and_its_result(tmp_path: Path) -> None:
    out = tmp_path / "study"
    status, text, error = call("induction", "--model", "zoo:truth/induction", "--pairs", "2", "--out", str(out))
    assert (status, error) == (0, "")
    assert "Induction heads, found by their attention and by patching: 1.1." in " ".join(text.split())
    assert (out / "report.html").read_text(encoding="utf-8").startswith("<!doctype html>")
    opened = pellucid.open(out / "result")
    assert opened.provenance.parameters == {"pairs": 2, "length": 12, "seed": 0}
    assert opened.notes[0].endswith("patching: 1.1.")


def test_words_may_come_from_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "names.txt").write_text("Mary\nXylophonia\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    status, _, error = call("indirect_object", "--names", "@names.txt")
    assert status == 2
    assert error.startswith("pellucid: Only 1 of 2 names are one token for zoo:tiny-lm, but 5 are needed")
    assert error.count("\n") == 1


def test_json_is_one_document() -> None:
    status, text, _ = call("arithmetic", "--model", "zoo:tiny-lm", "--json", "--pairs", "4")
    assert status == 0
    assert "cannot do this task" in json.loads(text)["notes"][0]


def test_an_unknown_study_and_an_encoder_are_one_line() -> None:
    assert call("inductoin")[2] == "pellucid: There is no study 'inductoin' (did you mean 'induction'?).\n"
    status, _, error = call("induction", "--model", "zoo:tiny-classifier")
    assert status == 2
    assert error.endswith("load a decoder.\n")
