"""A store keeps results exactly, finds them, is shared by processes, and says in a sentence what is wrong."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pellucid.core.encoding import as_json
from pellucid.core.errors import FileError, InputError, ResourceError
from pellucid.core.results import Explanation, Provenance, Result, Scores, Text
from pellucid.core.tokens import Tokens

pytest.importorskip("sqlalchemy")
from pellucid.store import Store, map_dataset
from pellucid.store.records import tensors_path


def scores(seed: int, method: str = "occlusion", text: str = "the cat") -> Scores:
    values = np.random.default_rng(seed).normal(size=5).astype(np.float32)
    values[0] = np.nan
    tokens = Tokens(tuple(range(5)), ("\ud800", *"abcd"), (False,) * 5, text)
    return Scores(provenance=Provenance(method=method, model="tiny"), values=values, tokens=tokens)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "results.db"


def test_results_come_back_exactly_in_the_order_of_their_keys(path: Path) -> None:
    with Store.open(path) as store:
        run = store.run("r", {"a": 1})
        for i in (2, 0, 1):
            assert run.save(f"{i}", [scores(i), Text(text=f"{i} \ud800\x00")])
    with Store.open(path) as store:
        found = list(store.run("r", {"a": 1}).results())
    assert [key for key, _ in found] == ["0", "0", "1", "1", "2", "2"]
    assert [as_json(r) for _, r in found] == [
        as_json(r) for i in range(3) for r in (scores(i), Text(text=f"{i} \ud800\x00"))
    ]


def test_an_unfinished_run_is_resumed_and_other_configurations_are_other_runs(path: Path) -> None:
    with Store.open(path) as store:
        run = store.run("r", {"a": 1, "b": (1, 2)})
        assert store.run("r", {"b": (1, 2), "a": 1}).number == run.number
        others = [store.run("r", {"a": 1, "b": (2, 1)}), store.run("s", {"a": 1, "b": (1, 2)})]
        assert len({run.number, *(o.number for o in others)}) == 3
        run.finish()
        assert run.finished
        assert store.run("r", {"a": 1, "b": (1, 2)}).number not in (run.number, *(o.number for o in others))
        assert [r.name for r in store.runs()] == ["r", "r", "s", "r"]


def test_a_saved_chunk_is_not_pending_and_is_never_replaced(path: Path) -> None:
    with Store.open(path) as store:
        run = store.run("r", {})
        assert run.save("b", Text(text="first"))
        assert run.pending(["a", "b", "c", "a"]) == ["a", "c"]
        assert not run.save("b", Text(text="second"))
        assert run.save_all({"b": Text(text="third"), "c": ()}) == 1
        assert (run.done, list(run.results())) == (2, [("b", Text(text="first"))])


def test_a_chunk_is_saved_whole_or_not_at_all(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Store.open(path) as store:
        run = store.run("r", {})
        with pytest.raises(InputError, match="dtype"):
            run.save("a", [scores(0), Scores(values=np.array(["x"]))])
        import sqlalchemy.orm

        def stop(*_: Any) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr(sqlalchemy.orm.Session, "add_all", stop)
        with pytest.raises(KeyboardInterrupt):
            run.save("a", scores(0))
        monkeypatch.undo()
        assert run.pending(["a"]) == ["a"]
        assert run.save("a", scores(0))


def test_find_by_method_model_and_text(path: Path) -> None:
    with Store.open(path) as store:
        one, two = store.run("one", {}), store.run("two", {})
        one.save("a", scores(0, "occlusion", "The CAT sat"))
        one.save("b", scores(1, "occlusion_more", "100% dog"))
        two.save("c", Explanation(results=(scores(2, "occlusion"),), tokens=Tokens((1,), ("x",), (False,), "a cat_")))
        two.save("d", Text(text="cat\ud800", provenance=Provenance(model="other")))

        def keys(**wanted: str) -> list[str]:
            return [f.key for f in store.find(**wanted)]

        assert keys() == ["a", "b", "c", "d"]
        assert keys(method="occlusion") == ["a", "c"]
        assert keys(model="tiny") == ["a", "b"]
        assert keys(text="cat") == ["a", "c", "d"]
        assert keys(text="0%") == ["b"]
        assert keys(text="t_") == ["c"]
        assert keys(text="\ud800") == ["d"]
        assert keys(text="cat", method="occlusion", model="tiny") == ["a"]
        assert keys(method="none") == []
        found = next(store.find(method="occlusion_more"))
        assert (found.run, as_json(found.result)) == ("one", as_json(scores(1, "occlusion_more", "100% dog")))


def test_many_results_are_read_in_pages(path: Path) -> None:
    with Store.open(path) as store:
        run = store.run("r", {})
        run.save_all({f"{i:03d}": [Text(text=f"{i}.{j}") for j in range(3)] for i in range(85)})
        expected = [f"{i}.{j}" for i in range(85) for j in range(3)]
        assert [r.text for _, r in run.results() if isinstance(r, Text)] == expected
        assert sum(1 for _ in store.find()) == 255


def test_a_data_set_is_explained_once_with_progress(path: Path) -> None:
    computed: list[str] = []
    seen: list[tuple[int, int]] = []

    def explain(item: str) -> Text:
        computed.append(item)
        if len(computed) == 3:
            raise RuntimeError("stop")
        return Text(text=item)

    with Store.open(path) as store:
        with pytest.raises(RuntimeError):
            map_dataset(store, "r", {}, list("abcd"), explain)
        run = map_dataset(
            store, "r", {}, list("abcd"), explain, progress=lambda done, total: seen.append((done, total))
        )
        assert computed == ["a", "b", "c", "c", "d"]
        assert seen == [(2, 4), (3, 4), (4, 4)]
        assert [(k, r.text) for k, r in run.results() if isinstance(r, Text)] == [
            (f"{i:08d}", t) for i, t in enumerate("abcd")
        ]
        assert run.finished
        assert map_dataset(store, "r", {}, list("abce"), lambda item: Text(text=item)).number != run.number


def test_batches_and_mappings_of_items(path: Path) -> None:
    with Store.open(path) as store:
        run = map_dataset(store, "b", {}, list("abcde"), lambda items: [Text(text=i) for i in items], batch=2)
        assert [r.text for _, r in run.results() if isinstance(r, Text)] == list("abcde")
        run = map_dataset(store, "m", {}, {"x": object(), "y": object()}, lambda item: [Text(), Text(text="2")])
        assert [k for k, _ in run.results()] == ["x", "x", "y", "y"]
        with pytest.raises(InputError, match="mapping"):
            map_dataset(store, "o", {}, [object()], lambda item: Text())
        with pytest.raises(InputError, match="1 results for a batch of 2"):
            map_dataset(store, "w", {}, ["a", "b"], lambda items: [Text()], batch=2)
        with pytest.raises(InputError, match="returned int"):
            map_dataset(store, "i", {}, ["a"], lambda item: 3)
        with pytest.raises(InputError, match="batch=0"):
            map_dataset(store, "z", {}, ["a"], lambda item: Text(), batch=0)


def test_threads_share_a_store_and_a_run(path: Path) -> None:
    with Store.open(path) as store:
        numbers: list[int] = []

        def work(offset: int) -> None:
            run = store.run("r", {})
            numbers.append(run.number)
            for i in range(5):
                run.save(f"{offset}.{i}", scores(i))

        threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(set(numbers)) == 1
        assert store.run("r", {}).done == 20


WORKER = """
    import sys
    from pellucid.core.results import Text
    from pellucid.store import Store
    with Store.open(sys.argv[1]) as store:
        run = store.run("r", {"shared": True})
        for i in range(8):
            run.save(f"{sys.argv[2]}.{i}", Text(text=str(i)))
        print(run.number)
"""


def start(script: str, *arguments: object, **options: Any) -> subprocess.Popen[str]:
    environment = os.environ | {"PYTHONPATH": str(Path(str(sys.modules["pellucid.store"].__file__)).parents[2])}
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script), *map(str, arguments)],
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        **options,
    )


def test_processes_that_open_a_new_store_at_once_share_it(path: Path) -> None:
    workers = [start(WORKER, path, n) for n in range(3)]
    outputs = [worker.communicate(timeout=120) for worker in workers]
    assert len({out for out, _ in outputs}) == 1, outputs
    with Store.open(path) as store:
        assert store.run("r", {"shared": True}).done == 24


def test_a_locked_database_is_a_sentence_and_loses_nothing(path: Path) -> None:
    with Store.open(path, patience=0.2) as store:
        run = store.run("r", {})
        run.save("a", Text(text="x"))
        other = sqlite3.connect(path)
        other.execute("BEGIN IMMEDIATE")
        began = time.monotonic()
        with pytest.raises(ResourceError, match=r"for 0\.2 s, because another process is writing"):
            run.save("b", Text(text="y"))
        assert time.monotonic() - began < 10
        assert [k for k, _ in run.results()] == ["a"]
        other.rollback()
        other.close()
        assert run.save("b", Text(text="y"))


def test_foreign_damaged_and_newer_databases_are_refused_unchanged(tmp_path: Path) -> None:
    foreign = tmp_path / "foreign.db"
    with sqlite3.connect(foreign) as connection:
        connection.execute("CREATE TABLE customers (id INTEGER)")
    connection.close()
    before = foreign.read_bytes()
    with pytest.raises(FileError, match="another program"):
        Store.open(foreign)
    with sqlite3.connect(foreign) as connection:
        assert connection.execute("SELECT name FROM sqlite_master").fetchall() == [("customers",)]
    connection.close()
    assert len(before) > 0
    (tmp_path / "text.db").write_text("no database at all " * 100)
    with pytest.raises(FileError, match="no database or is damaged"):
        Store.open(tmp_path / "text.db")
    with pytest.raises(FileError, match="is a folder"):
        Store.open(tmp_path)
    (tmp_path / "file").write_text("x")
    with pytest.raises(FileError, match="cannot be made"):
        Store.open(tmp_path / "file" / "x.db")
    Store.open(tmp_path / "new.db").close()
    with sqlite3.connect(tmp_path / "new.db") as connection:
        connection.execute("UPDATE pellucid_store SET schema = 99")
    connection.close()
    with pytest.raises(FileError, match="update pellucid"):
        Store.open(tmp_path / "new.db")


def test_a_damaged_page_is_a_sentence(path: Path) -> None:
    with Store.open(path) as store:
        store.run("r", {}).save_all({f"{i}": Text(text="x" * 2000) for i in range(20)})
    content = bytearray(path.read_bytes())
    content[4096:] = os.urandom(len(content) - 4096)
    path.write_bytes(content)

    def read() -> None:
        with Store.open(path) as store:
            list(store.run("r", {}).results())

    with pytest.raises(FileError, match="damaged"):
        read()


def test_missing_and_changed_tensors_are_sentences(path: Path) -> None:
    with Store.open(path) as store:
        run = store.run("r", {})
        run.save("a", scores(0))
        (file,) = store.folder.glob("*/*.safetensors")
        content = file.read_bytes()
        file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        with pytest.raises(FileError, match="cut or changed"):
            list(run.results())
        file.unlink()
        with pytest.raises(FileError, match="tensors of the result 'a'"):
            list(store.find())


def test_urls_that_cannot_work_are_sentences(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="unknown kind of database"):
        Store.open("nosuch://host/name")
    with pytest.raises(InputError, match="folder="):
        Store.open("sqlite://")
    with Store.open(f"sqlite:///{tmp_path}/u.db", tmp_path / "t") as store:
        store.run("r", {}).save("a", scores(0))
        assert list((tmp_path / "t").glob("*/*"))


@pytest.mark.parametrize(("key", "name"), [("", "r"), ("k" * 401, "r"), ("\ud800", "r"), ("a", ""), ("a", "n" * 401)])
def test_names_that_cannot_be_kept_are_refused(key: str, name: str, path: Path) -> None:
    with Store.open(path) as store, pytest.raises(InputError):
        store.run(name, {}).save(key, Text())


FULL = """
    import resource, sys
    from pellucid.core.errors import ResourceError
    from pellucid.core.results import Text
    from pellucid.store import Store
    with Store.open(sys.argv[1]) as store:
        run = store.run("r", {})
        run.save("before", Text(text="x"))
        limit = 200_000
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
        try:
            for i in range(100):
                run.save(f"{i:03d}", Text(text="y" * 20_000))
        except ResourceError as error:
            print(i, error)
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        assert run.save("after", Text(text="z"))
"""


def test_a_full_disk_is_a_sentence_and_loses_nothing(path: Path) -> None:
    out, err = start(FULL, path).communicate(timeout=120)
    assert "no space left" in out, out + err
    saved = int(out.split()[0])
    with Store.open(path) as store:
        assert [k for k, _ in store.run("r", {}).results()] == [*(f"{i:03d}" for i in range(saved)), "after", "before"]


def test_tidy_removes_only_old_files_that_no_result_names(path: Path) -> None:
    with Store.open(path) as store:
        run = store.run("r", {})
        run.save("a", scores(0))
        (kept,) = store.folder.glob("*/*")
        orphans = [
            tensors_path(store.folder, "ab" * 32),
            store.folder / "cd" / ".pellucid-1.tmp",
            tensors_path(store.folder, "ef" * 32),
        ]
        for orphan in orphans:
            orphan.parent.mkdir(exist_ok=True)
            orphan.write_bytes(b"x")
        for old in (kept, *orphans[:2]):
            os.utime(old, (1, 1))
        assert store.tidy() == 2
        assert kept.exists()
        assert [o.exists() for o in orphans] == [False, False, True]


def test_the_results_of_a_run_may_be_of_any_kind(path: Path) -> None:
    from tests.core.test_saving import every_kind

    with Store.open(path) as store:
        run = store.run("r", {})
        kinds: list[Result] = every_kind()
        run.save("a", kinds)
        assert [as_json(r) for _, r in run.results()] == [as_json(r) for r in kinds]
