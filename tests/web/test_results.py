"""Results: as JSON, as bytes, as files, searched, annotated, deleted and uploaded."""

from __future__ import annotations

import json

import numpy as np
import pytest

import pellucid
from pellucid.core.errors import InputError
from pellucid.core.jsonable import as_json
from pellucid.core.results import Explanation, Learned, Scores
from pellucid.web import documents
from tests.web.served import CAPITAL, Client


@pytest.fixture(scope="module")
def large() -> Scores:
    values = np.random.default_rng(0).normal(size=(4, 3, 60, 60)).astype(np.float32)
    values[0, 0, 0] = np.nan
    return Scores(values=values, axes=("layer", "head", "query", "key"), title="Patterns")


def unpacked(packed: documents.Slice) -> np.ndarray:
    """What a view does with the bytes, as plainly as the notes say it."""
    kind = {"uint8": "u1", "float16": "<f2", "float32": "<f4"}[packed.dtype]
    entries = np.frombuffer(packed.content, kind).reshape(packed.shape).astype(float)
    values = packed.offset + packed.scale * entries
    return np.where(entries == 255, np.nan, values) if packed.dtype == "uint8" else values


@pytest.mark.parametrize(("dtype", "error"), [("uint8", 1 / 254), ("float16", 1e-3), ("float32", 1e-7)])
@pytest.mark.parametrize("sign", [-1, 1])
def test_a_slice_is_the_array_to_its_precision(large: Scores, dtype: str, error: float, sign: int) -> None:
    values = large.values[2, 1] if sign < 0 else np.abs(large.values[2, 1])
    found = unpacked(documents.packed(values, dtype))
    assert np.abs(found - values).max() <= error * np.abs(values).max()


def test_zero_is_exactly_zero_and_no_number_is_none() -> None:
    found = unpacked(documents.packed(np.array([-3.0, 0.0, np.nan, 1.0, np.inf]), "uint8"))
    assert found[1] == 0.0
    assert np.isnan(found[[2, 4]]).all()
    assert unpacked(documents.packed(np.zeros((0, 3)), "uint8")).shape == (0, 3)
    assert unpacked(documents.packed(np.zeros(2), "uint8")).tolist() == [0, 0]


def test_a_slice_fixes_named_axes(large: Scores) -> None:
    found = documents.sliced(large, "values", "layer:2,head:-1", "float32")
    assert np.array_equal(unpacked(found), large.values[2, 2])
    learned = Learned(tensors={"a/b": np.arange(6.0).reshape(2, 3)})
    assert unpacked(documents.sliced(learned, "a/b", "0:1", "float32")).tolist() == [3, 4, 5]


@pytest.mark.parametrize(
    "at", ["layer", "layer:x", "layer:4", "layer:-5", "neuron:1", "layer:²", "layer:1e3", "," * 3 + "x"]
)
def test_a_slice_that_is_none_is_refused(large: Scores, at: str) -> None:
    with pytest.raises(InputError, match="slice"):
        documents.sliced(large, "values", at, "uint8")


def test_large_arrays_are_left_out_and_everything_else_is_the_librarys_own_json(large: Scores) -> None:
    small = Scores(values=np.arange(3.0), axes=("unit",))
    whole = Explanation(title="Both", results=(small, large))
    found = documents.document(whole)
    right = as_json(whole)
    assert found["results"][1].pop("values") == {
        "left_out": True, "shape": [4, 3, 60, 60], "dtype": "float32",
        "min": float(np.nanmin(large.values)), "max": float(np.nanmax(large.values)),
    }  # fmt: skip
    right["results"][1].pop("values")
    assert found == right
    assert len(json.dumps(found)) < 5000


def test_a_slice_over_the_wire(client: Client) -> None:
    found = client.answer("attention_rollout")
    reply = client("GET", f"/api/v1/results/{found['id']}/values?dtype=float32")
    shape = tuple(int(size) for size in reply.headers["x-shape"].split(","))
    values = np.frombuffer(reply.content, "<f4").reshape(shape)
    assert np.allclose(values, np.array(found["values"], dtype=float), atol=1e-6)
    assert client("GET", f"/api/v1/results/{found['id']}/values?at=head:900").status == 400
    assert client("GET", f"/api/v1/results/{found['id']}/values?part=0").status == 400


def test_files_and_the_way_back(client: Client, tmp_path) -> None:
    found = client.answer("explain", parameters={"methods": ["gradient_x_input"]}, target=" Paris")
    path = f"/api/v1/results/{found['id']}"
    files = {kind: client("GET", f"{path}/file.{kind}") for kind in ("json", "csv", "svg", "png", "html")}
    assert {reply.status for reply in files.values()} == {200}
    assert files["png"].content.startswith(b"\x89PNG")
    assert b"<svg" in files["svg"].content
    assert files["csv"].content.decode().splitlines()[0].startswith("method,unit,value")
    again = client("POST", "/api/v1/upload", files["json"].content)
    assert again.status == 201
    brought = client.get(f"/results/{again.json['id']}")
    assert {**brought, "id": "", "note": ""} == {**found, "id": "", "note": ""}
    assert client("GET", f"{path}/file.exe").status == 422


def test_the_python_that_is_copied_gives_the_same(client: Client) -> None:
    edit = {"site": "blocks.2.mlp.out", "how": "scale", "value": 0.5}
    asked = {"target": " Paris", "parameters": {"steps": 8}, "edits": [edit]}
    found = client.answer("integrated_gradients", **asked)
    code = client.get(f"/results/{found['id']}/code")["code"]
    assert "import pellucid" in code
    space: dict = {}
    exec(code.replace("result.show()\n", ""), space)
    assert np.allclose(space["result"].values, found["values"], atol=1e-4)
    assert space["result"].provenance.edits == tuple(found["provenance"]["edits"])


def test_runs_are_searched_annotated_and_deleted(client: Client) -> None:
    prompt = "The capital of Spain is"
    found = client.answer("gradient_norm", prompt=prompt)
    number = found["id"]
    [run] = client.get("/runs?q=capital+of+spain&method=gradient_norm&model=zoo-tiny-lm")["runs"]
    assert (run["id"], run["prompt"], run["method"]) == (number, prompt, "gradient_norm")
    assert run["request"]["prompt"] == prompt
    assert client.get("/runs?q=no-such-text")["runs"] == []
    assert client.get("/runs?until=2001-01-01")["runs"] == []
    assert client("GET", "/api/v1/runs?since=yesterday").status == 400
    changed = client("PATCH", f"/api/v1/runs/{number}", {"note": "odd <b>", "tags": ["a", "b"]}).json
    assert (changed["note"], changed["tags"]) == ("odd <b>", ["a", "b"])
    assert client("PATCH", f"/api/v1/runs/{number}", {"tags": ["b"]}).json["tags"] == ["b"]
    assert client.get(f"/results/{number}")["note"] == "odd <b>"
    assert client.get("/runs?tag=b")["runs"][0]["id"] == number
    assert client("DELETE", f"/api/v1/runs/{number}").status == 204
    for method, path in (("GET", f"/results/{number}"), ("DELETE", f"/runs/{number}"), ("PATCH", f"/runs/{number}")):
        body = {"note": "x"} if method == "PATCH" else None
        assert client(method, f"/api/v1{path}", body).status == 404


def test_pages_of_runs_hold_each_result_once(client: Client) -> None:
    for _ in range(3):
        client.answer("gradient_norm", prompt=CAPITAL)
    every = [run["id"] for run in client.get("/runs?limit=200")["runs"]]
    paged, before = [], ""
    while before is not None:
        page = client.get(f"/runs?limit=2{f'&before={before}' if before else ''}")
        paged += [run["id"] for run in page["runs"]]
        before = page["next"]
    assert paged == every


def test_opened_json_is_what_the_library_saves(client: Client) -> None:
    found = client.answer("gradient_norm")
    right = pellucid.run("gradient_norm", pellucid.load("zoo:tiny-lm"), CAPITAL)
    assert set(found) - {"id", "note", "tags"} == set(as_json(right))
