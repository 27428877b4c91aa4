"""`pellucid runs`: list, search, show, note, export, import and keep, on a store of their own."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from pellucid.cli.app import app
from pellucid.core.results import Provenance, Scores, Text

pytest.importorskip("sqlalchemy")
from pellucid.store import Store, place


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A store with two results, which the commands find by the environment."""
    path = tmp_path / "store.db"
    monkeypatch.setenv("PELLUCID_STORE", str(path))
    with Store.open(path) as opened:
        opened.add(Scores(title="The cat", values=np.ones(2), provenance=Provenance(method="occlusion", model="m")))
        opened.add(Text(title="\x1b[31mred", text="[bold]dog[/bold]", provenance=Provenance(method="lime")))
    return path


def call(*arguments: str) -> tuple[int, str, str]:
    done = CliRunner().invoke(app, ["runs", *arguments], env={"COLUMNS": "160"})
    return done.exit_code, done.stdout, done.stderr


def numbers(*arguments: str) -> list[int]:
    status, out, error = call(*arguments, "--json")
    assert (status, error) == (0, "")
    return [saved["number"] for saved in json.loads(out)]


def test_results_are_listed_newest_first_and_text_is_never_obeyed(store: Path) -> None:
    status, out, error = call("list")
    assert (status, error) == (0, "")
    lines = out.splitlines()
    assert lines[1].split()[0] == "2"
    assert lines[2].split()[0] == "1"
    assert "[bold]dog[/bold]" in lines[1]
    assert "\x1b" not in out
    assert numbers("list", "--limit", "1") == [2]
    assert numbers("list", "--limit", "1", "--before", "2") == [1]
    assert "--before 2 shows the next page" in call("list", "--limit", "1")[1]


def test_search_by_what_is_given(store: Path) -> None:
    assert numbers("search", "CAT") == [1]
    assert numbers("search", "--method", "lime") == [2]
    assert numbers("search", "--model", "m", "--since", "1d") == [1]
    assert numbers("search", "--until", "2020-01-01") == []
    assert call("search", "nothing")[1] == "No results.\n"
    status, _, error = call("search", "--since", "soon")
    assert (status, error.count("\n")) == (2, 1)
    assert "'soon'" in error


def test_a_result_is_shown_again_with_its_note(store: Path, tmp_path: Path) -> None:
    assert call("note", "1", "look here", "--tag", "paper", "--tag", "b")[:2] == (
        0,
        "Result 1: look here [paper, b]\n",
    )
    status, out, _ = call("show", "1", "--html", str(tmp_path / "page.html"), "--save", str(tmp_path / "saved"))
    assert status == 0
    assert "Note: look here" in out
    assert "Tags: paper, b" in out
    assert (tmp_path / "page.html").exists()
    assert json.loads(call("show", "1", "--json")[1])["title"] == "The cat"
    assert numbers("search", "--tag", "paper", "--note", "LOOK") == [1]
    assert call("note", "1", "", "--untag", "paper", "--untag", "b")[1] == "Result 1: no note [no tags]\n"
    assert call("note", "1")[2] == "pellucid: Nothing was given to note; give TEXT, --tag or --untag.\n"
    assert call("show", "9")[2].startswith("pellucid: No result 9 is in the store")


def test_an_export_is_read_into_another_store(store: Path, tmp_path: Path) -> None:
    archive, other = str(tmp_path / "out.zip"), str(tmp_path / "other.db")
    assert call("export", archive)[1].startswith("Wrote 2 results")
    assert call("import", archive, "--store", other)[1].startswith("Read 2 new results")
    assert call("import", archive, "--store", other)[1].startswith("Read 0 new results")
    assert call("export", str(tmp_path / "folder"), "2")[1].startswith("Wrote 1 results")
    assert numbers("list", "--store", other) == [2, 1]


def test_what_is_old_or_large_is_forgotten(store: Path) -> None:
    call("note", "1", "stay")
    assert json.loads(call("keep", "--newest", "0", "--dry-run", "--json")[1])["runs"] == 1
    assert call("keep", "--size", "1.5 kb", "--newer-than", "2w")[1].startswith("Forgot ")
    assert call("keep", "--newest", "0")[0] == 0
    assert numbers("list") == [1]
    assert call("keep", "--newest", "0", "--annotated")[1].startswith("Forgot 1 runs with 1 results")
    assert numbers("list") == []
    assert "no rule" in call("keep")[2]
    assert "such as 500MB" in call("keep", "--size", "big")[2]


def test_the_store_is_the_users_own_where_nothing_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("PELLUCID_STORE", raising=False)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert place() == (str(tmp_path / "pellucid" / "store.db"), None)
    monkeypatch.setenv("PELLUCID_TENSORS", "t")
    assert place("x.db") == ("x.db", "t")
