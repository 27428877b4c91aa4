"""Saved results are found, annotated, forgotten by rules, and carried from one store to another."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pellucid
from pellucid.core.encoding import as_json
from pellucid.core.errors import FileError, InputError
from pellucid.core.results import Explanation, Provenance, Result, Scores

pytest.importorskip("sqlalchemy")
from sqlalchemy import update

from pellucid.store import Saved, Store
from pellucid.store.schema import ChunkRow, RunRow, written
from tests.store.conftest import Place


@pytest.fixture
def store(place: Place) -> Iterator[Store]:
    with Store.open(*place) as opened:
        yield opened


def result(text: str, method: str = "occlusion", model: str = "tiny", seed: int = 0) -> Scores:
    values = np.random.default_rng(seed).normal(size=4)
    return Scores(title=text, values=values, provenance=Provenance(method=method, model=model))


def numbers(found: list[Saved]) -> list[int]:
    return [saved.number for saved in found]


def dated(store: Store, number: int, days: float) -> None:
    """Make the run of a result `days` older."""
    moment = written(datetime.now(UTC) - timedelta(days=days))
    run = store.saved(number).run
    with store.database.writing() as session:
        session.execute(update(RunRow).where(RunRow.id == run).values(created=moment, ended=moment))
        session.execute(update(ChunkRow).where(ChunkRow.run_id == run).values(committed=moment))


def test_search_by_everything_newest_first_in_pages(store: Store) -> None:
    a = store.add(result("The ÄPFEL 100%"), "morning")
    b = store.add(result("pears", "lime", "other"))
    c = store.add(Explanation(title="plums_", results=(result("x", "lime"), result("y", "shap"))))
    dated(store, a, 10)
    store.annotate(a, note="Odd: look Again", tags=["paper", "for ann"])
    store.annotate(c, tags=["paper"])

    def found(**wanted: Any) -> list[int]:
        return numbers(store.search(**wanted))

    assert found() == [c, b, a]
    assert found(limit=2) == [c, b]
    assert found(limit=2, before=b) == [a]
    assert found(method="lime") == [c, b]
    assert found(model="other") == [b]
    assert found(text="äpfel 100%") == [a]
    assert found(text="_") == [c]
    assert found(run="morning") == [a]
    assert found(run="lime") == [b]
    assert found(tag="paper") == [c, a]
    assert found(tag="pap") == []
    assert found(note="look again") == [a]
    assert found(annotated=True) == [c, a]
    assert found(annotated=False) == [b]
    ago = datetime.now(UTC) - timedelta(days=5)
    assert found(since=ago) == [c, b]
    assert found(until=ago) == [a]
    assert found(until=ago.isoformat(), method="occlusion", tag="for ann", text="apf") == []
    saved = store.saved(c)
    assert (saved.methods, saved.kind, saved.model, saved.key) == (("lime", "shap"), "Explanation", "", "result")
    assert store.saved(a).tags == ("paper", "for ann")
    for wrong in ({"since": "yesterday"}, {"limit": 0}, {"until": "2026-99-01"}):
        with pytest.raises(InputError):
            found(**wrong)


def test_notes_and_tags_change_and_go(store: Store) -> None:
    n = store.add(result("a"))
    saved = store.annotate(n, note="first \x00", tags=["x", " y ", "x"])
    assert (saved.note, saved.tags) == ("first \ufffd", ("x", "y"))
    assert store.annotate(n, tags=["z"], untag=["x"]).note == "first \ufffd"
    assert store.annotate(n, note="", untag=["y", "z"]).tags == ()
    assert not store.search(annotated=True)
    refused: list[dict[str, Any]] = [
        {"tags": ["a|b"]},
        {"tags": [""]},
        {"tags": ["t" * 101]},
        {"note": "n" * 100_001},
    ]
    for wrong in refused:
        with pytest.raises(InputError):
            store.annotate(n, **wrong)
    with pytest.raises(InputError, match="101 tags"):
        store.annotate(n, tags=[str(i) for i in range(101)])
    with pytest.raises(InputError, match="No result"):
        store.annotate(n + 1, note="x")
    assert store.saved(n).tags == ()


def test_keeping_the_newest_what_is_recent_and_what_fits(store: Store) -> None:
    many = [store.add(result(f"{i}", seed=i)) for i in range(6)]
    for i, n in enumerate(many):
        dated(store, n, 10 - i)
    store.annotate(many[0], note="keep me")
    running = store.run("running", {})
    running.save("a", result("r"))
    dry = store.keep(newest=3, dry=True)
    assert (dry.runs, dry.results) == (2, 2)
    assert len(store.search()) == 7
    assert store.keep(newest=3) == dry
    left = [many[0], *many[3:]]
    assert sorted(numbers(store.search()))[:4] == left
    assert running.done == 1
    assert store.keep(since=datetime.now(UTC) - timedelta(days=6.5)).runs == 1
    assert [n in numbers(store.search()) for n in many] == [True, False, False, False, True, True]
    each = store.keep(size=0, dry=True).bytes // 2
    assert each > 100
    assert store.keep(size=int(each * 2.5)).runs == 1  # the annotated one takes its share first
    assert [n in numbers(store.search()) for n in many] == [True, False, False, False, False, True]
    assert store.keep(newest=0, annotated=True).runs == 2
    assert numbers(store.search(run="running")) == numbers(store.search())
    assert running.done == 1
    with pytest.raises(InputError, match="no rule"):
        store.keep()
    with pytest.raises(InputError, match="newest=-1"):
        store.keep(newest=-1)


def test_a_run_is_forgotten_whole_or_not_at_all(store: Store) -> None:
    run = store.run("r", {})
    run.save_all({f"{i}": result(f"{i}") for i in range(5)})
    (last, *_) = numbers(store.search())
    with pytest.raises(InputError, match="not finished"):
        store.delete(last)
    run.finish()
    store.annotate(last, tags=["x"])
    assert store.keep(newest=0).runs == 0
    assert run.done == 5
    store.delete(last)
    assert store.search() == []
    assert store.runs() == []
    assert store.add(result("new")) > last  # a number is never given twice


def test_a_job_outlives_its_result_and_old_jobs_go(store: Store) -> None:
    job, failed = store.jobs.enqueue("t", "m", {}), store.jobs.enqueue("t", "m", {})
    store.jobs.claim("w")
    store.jobs.claim("w")
    number = store.jobs.finish(job.id, "w", result("a"))
    assert number is not None
    store.jobs.fail(failed.id, "w", "no")
    waiting = store.jobs.enqueue("t", "m", {})
    store.delete(number)
    assert (store.jobs.get(job.id).state, store.jobs.get(job.id).result) == ("done", None)
    store.keep(since=datetime.now(UTC) + timedelta(days=1))
    assert [j.id for j in store.jobs.recent()] == [waiting.id]


def known(saved: Saved) -> Any:
    """What an export must keep."""
    return saved.name, saved.key, saved.text, saved.saved, saved.note, saved.tags, saved.config, saved.methods


def fill(store: Store) -> list[Result]:
    from tests.core.test_saving import every_kind

    kinds = every_kind()
    run = store.run("all \x00 kinds", {"a": (1, 2.5), "b": None})
    run.save("k", kinds)
    run.finish()
    n = store.add(result("alone"), config={"prompt": "x"})
    store.annotate(n, note='note\n"', tags=["t1", "t2"])
    return kinds


@pytest.mark.parametrize("name", ["results.zip", "results"])
def test_an_export_comes_back_in_another_store(name: str, store: Store, tmp_path: Path) -> None:
    kinds = fill(store)
    path = tmp_path / "out" / name
    assert store.export(path) == len(kinds) + 1
    with Store.open(tmp_path / "other.db") as other:
        first = other.add(result("was there"))
        assert other.bring(path) == len(kinds) + 1
        assert other.bring(path) == 0
        ours, theirs = store.search(limit=99), other.search(limit=99)[:-1]
        assert [as_json(other.get(s.number)) for s in theirs] == [as_json(store.get(s.number)) for s in ours]
        assert [known(s) for s in theirs] == [known(s) for s in ours]
        assert other.saved(first).text == "was there"
    if name == "results":
        inside = path / "results" / str(ours[0].number)
        assert as_json(pellucid.open(inside)) == as_json(store.get(ours[0].number))
    index = json.loads((path / "index.json").read_text() if path.is_dir() else zipfile.ZipFile(path).read("index.json"))
    assert [entry["number"] for entry in index["results"]] == sorted(numbers(ours))


def test_some_results_are_exported_and_what_is_missing_is_said(store: Store, tmp_path: Path) -> None:
    a, b = store.add(result("a")), store.add(result("b", seed=1))
    assert store.export(tmp_path / "one.zip", [b, b]) == 1
    with pytest.raises(InputError, match="No result"):
        store.export(tmp_path / "two.zip", [a, 999])
    for file in store.folder.glob("*/*"):
        file.write_bytes(b"x")
    for name in ("three.zip", "three"):
        with pytest.raises(FileError, match="cut or changed"):
            store.export(tmp_path / name, [a])
    assert sorted(p.name for p in tmp_path.iterdir() if "pellucid" in p.name or p.name.startswith("t")) == ["tensors"]


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    with Store.open(tmp_path / "source.db") as source:
        source.add(result("a"))
        source.export(tmp_path / "x.zip")
    return tmp_path / "x.zip"


def changed(archive: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    other = archive.with_name("changed.zip")
    with zipfile.ZipFile(archive) as old, zipfile.ZipFile(other, "w") as new:
        for name in old.namelist():
            content = old.read(name)
            if name == "index.json":
                index = json.loads(content)
                change(index)
                content = json.dumps(index).encode()
            new.writestr(name, content)
    return other


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda i: i.update(format="x"), "no export"),
        (lambda i: i.update(schema=99), "update pellucid"),
        (lambda i: i.update(results={}), "damaged"),
        (lambda i: i["results"][0].update(number="../../secret"), "damaged"),
        (lambda i: i["results"][0].update(number=7), "lacks results/7"),
        (lambda i: i["results"][0].update(key="\ud800"), "damaged"),
        (lambda i: i["results"][0].update(place=10**30), "damaged"),
        (lambda i: i["results"][0].update(tags=[1]), "damaged"),
        (lambda i: i["results"][0].pop("config"), "damaged"),
    ],
)
def test_a_damaged_or_hostile_index_is_refused(
    change: Callable[[dict[str, Any]], None], said: str, archive: Path, tmp_path: Path
) -> None:
    with Store.open(tmp_path / "s.db") as store:
        with pytest.raises(FileError, match=said):
            store.bring(changed(archive, change))
        assert store.search() == []


def test_a_cut_archive_and_what_is_none_are_refused(archive: Path, tmp_path: Path) -> None:
    content = archive.read_bytes()
    with Store.open(tmp_path / "s.db") as store:
        for broken in (content[: len(content) // 2], b"no zip", b""):
            (tmp_path / "broken.zip").write_bytes(broken)
            with pytest.raises(FileError, match="zip file"):
                store.bring(tmp_path / "broken.zip")
        (tmp_path / "empty").mkdir()
        with pytest.raises(FileError, match="cannot be read"):
            store.bring(tmp_path / "empty")
        with pytest.raises(FileError, match="cannot be read"):
            store.bring(tmp_path / "none.zip")
        place = content.index(b"tensors.safetensors") + 60
        (tmp_path / "broken.zip").write_bytes(content[:place] + b"\x99" * 8 + content[place + 8 :])
        with pytest.raises(FileError):
            store.bring(tmp_path / "broken.zip")
        assert store.search() == []
