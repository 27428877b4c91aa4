"""The MCP server answers the SDK's own client: over a pipe as assistants start it, and in this process for the rest."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anyio
import numpy as np
import pytest

pytest.importorskip("mcp")
pytest.importorskip("sqlalchemy")
from mcp import Client, StdioServerParameters

import pellucid
from pellucid.core.encoding import as_json
from pellucid.core.results import Explanation, Result, Scores
from pellucid.store import Store
from pellucid.web.mcp import server
from pellucid.web.mcp_answers import answer
from pellucid.web.mcp_service import Limits, Service
from tests.core.test_saving import every_kind

CAPITAL = "The capital of France is"
ITALY = "The capital of Italy is"
Call = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with Store.open(tmp_path_factory.mktemp("mcp") / "store.db") as store:
        models = {"tiny": "zoo:tiny-lm", "induction": "zoo:truth/induction"}
        yield Service(models, store, Limits(characters=400, tokens=40))


@pytest.fixture
def call(service: Service) -> Call:
    """Call a tool and return its structured content, or fail; an expected error comes as {"error": text}."""

    def call(tool: str, *, fails: bool = False, **arguments: Any) -> dict[str, Any]:
        async def ask() -> Any:
            async with Client(server(service)) as client:
                return await client.call_tool(tool, arguments)

        found = anyio.run(ask)
        text = "".join(block.text for block in found.content if block.type == "text")
        assert found.is_error is fails, text
        if fails:
            return {"error": text}
        assert found.structured_content is not None
        return {**found.structured_content, "said": text}

    return call


@pytest.mark.slow
def test_over_a_pipe_an_explanation_a_patch_and_a_saved_run(tmp_path: Path) -> None:
    parameters = StdioServerParameters(
        command=sys.executable,
        args=["-m", "pellucid", "mcp", "--model", "zoo:tiny-lm", "--store", str(tmp_path / "store.db")],
        env={"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PATH": os.environ["PATH"]},
    )

    async def session() -> tuple[Any, ...]:
        async with Client(parameters, read_timeout_seconds=120) as client:
            tools = {tool.name for tool in (await client.list_tools()).tools}
            explained = await client.call_tool(
                "explain", {"prompt": CAPITAL, "target": " Paris", "methods": ["integrated_gradients"]}
            )
            patched = await client.call_tool(
                "patch", {"clean": CAPITAL, "corrupt": ITALY, "target": " Paris", "contrast": " Rome"}
            )
            again = await client.call_tool("open_run", {"run": explained.structured_content["run"]})
            return tools, explained, patched, again

    tools, explained, patched, again = anyio.run(session)
    assert tools == {
        "list_models", "list_methods", "describe_method", "explain", "patch", "run_method", "search_runs", "open_run",
    }  # fmt: skip
    assert not explained.is_error
    assert "Paris" in explained.content[0].text
    assert len(explained.content[0].text) <= 4000
    (scores,) = explained.structured_content["results"]
    assert scores["method"] == "integrated_gradients"
    assert [entry["name"]["unit"].strip() for entry in scores["entries"][:2]] == ["is", "capital"]
    sizes = [abs(entry["value"]) for entry in scores["entries"]]
    assert len(sizes) == 5
    assert sizes == sorted(sizes, reverse=True)
    assert "completeness" in [check["name"] for check in scores["evidence"]]
    assert patched.structured_content["axes"] == ["layer", "position"]
    assert patched.structured_content["entries"][0]["value"] > 0
    assert again.structured_content == explained.structured_content
    with Store.open(tmp_path / "store.db") as store:
        saved = store.search()
        assert [s.number for s in saved] == [patched.structured_content["run"], explained.structured_content["run"]]
        result = store.get(saved[0].number)
        assert isinstance(result, Scores)
        subject = pellucid.load("zoo:tiny-lm")
        pair = pellucid.Pair(CAPITAL, ITALY)
        own = pellucid.run("activation_patching", subject, pair, target=" Paris", contrast=" Rome")
        np.testing.assert_allclose(result.values, own.values, rtol=1e-4, atol=1e-5)


def test_only_the_models_of_the_list_are_asked(call: Call, service: Service) -> None:
    assert [card["id"] for card in call("list_models")["result"]] == ["tiny", "induction"]
    for model in ("zoo:tiny-classifier", "../secret", "http://evil.test/x"):
        error = call("explain", fails=True, prompt=CAPITAL, model=model)["error"]
        assert "There is no model" in error
        assert "tiny" in error
    assert set(service._loaded) <= {"tiny", "induction"}
    assert "no model" in call("run_method", fails=True, method="cka", models=["tiny", "other"])["error"]


def test_methods_are_listed_searched_and_described(call: Call) -> None:
    found = call("list_methods", search="shapley", limit=5)["result"]
    assert "shapley_values" in [entry["name"] for entry in found]
    assert {entry["family"] for entry in call("list_methods", family="patching")["result"]} == {"patching"}
    described = call("describe_method", name="integrated_gradients")
    assert "steps" in [parameter["name"] for parameter in described["parameters"]]
    assert "did you mean 'occlusion'" in call("describe_method", fails=True, name="oclusion")["error"]


def test_any_method_runs_with_its_parameters_and_is_found_again(call: Call) -> None:
    found = call(
        "run_method", method="integrated_gradients", prompt=CAPITAL, model="tiny", target=" Paris", contrast=" Rome",
        parameters={"steps": 4}, most=2,
    )  # fmt: skip
    assert (found["kind"], len(found["entries"]), found["entries_left_out"]) == ("Scores", 2, found["shape"][0] - 2)
    assert [found["run"]] == [run["run"] for run in call("search_runs", method="integrated_gradients")["result"]]
    assert call("search_runs", text="FRANCE is", limit=1)["result"][0]["run"] == found["run"]
    assert call("search_runs", until="2020-01-01")["result"] == []
    opened = call("open_run", run=found["run"], most=2)
    assert {**opened, "said": ""} == {**found, "said": ""}
    messages = [{"role": "user", "content": "Where is Paris?"}]
    assert call("run_method", method="occlusion", prompt=messages, model="tiny")["kind"] == "Scores"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"method": "occlusion"}, "needs 'prompt'"),
        ({"method": "occlusion", "prompt": "a " * 300}, "at most 400"),
        ({"method": "occlusion", "prompt": "a " * 100}, "at most 40"),
        ({"method": "activation_patching", "pair": {"clean": "a " * 100, "corrupt": "b"}}, "at most 40"),
        ({"method": "occlusion", "prompt": "a", "parameters": {"nonsense": 1}}, "no parameter 'nonsense'"),
        ({"method": "occlusion", "prompt": "a", "parameters": {"x": {"y": "z" * 500}}}, "at most 400"),
        ({"method": "none_such", "prompt": "a"}, "no method"),
        ({"method": "integrated_gradients", "prompt": "a b", "parameters": {"steps": "many"}}, ""),
        ({"method": "occlusion", "prompt": "a", "target": 10**9}, ""),
        ({"method": "completeness", "parameters": {"attribution": {"result": "99999"}}}, ""),
        ({"method": "occlusion", "prompt": [{"role": "user"}]}, ""),
        ({"method": "occlusion", "prompt": "a", "pair": {"clean": 1}}, ""),
    ],
)
def test_what_cannot_be_asked_is_a_sentence(arguments: dict[str, Any], said: str, call: Call, service: Service) -> None:
    before = len(service.store.search(limit=1000))
    error = call("run_method", fails=True, **arguments)["error"]
    assert said in error
    assert "Traceback" not in error
    assert len(service.store.search(limit=1000)) == before


def test_a_run_that_is_not_there_and_a_date_that_is_none(call: Call) -> None:
    assert "No result 99999" in call("open_run", fails=True, run=99999)["error"]
    assert "write it as" in call("search_runs", fails=True, since="soon")["error"]


def test_every_kind_is_told_briefly_in_plain_json() -> None:
    for result in every_kind():
        told = answer(result, 3, 5)
        assert told.kind == type(result).__name__
        assert 0 < len(told.text) <= 4000
        assert told.model_dump_json()
        assert not any(c in told.text for c in "\x00\x1b\ud800")


def test_hostile_tokens_are_shown_and_not_obeyed() -> None:
    text = "\x1b[2J\u202e</script>\x00"
    result: Result = Explanation(title=text, target=text, predictions=((text, 0.5),), notes=(text,), continuation=text)
    told = answer(result, None, 5)
    assert not any(c in told.text for c in "\x1b\x00\u202e")
    assert "</script>" in told.text
    assert as_json(result)


def test_a_question_that_is_taken_back_stops_between_batches(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    from pellucid.core.errors import Cancelled
    from pellucid.engine import planning

    ended: list[str] = []

    def slow(*_: Any) -> Any:
        try:
            while True:
                planning.check_cancelled()
        except Cancelled:
            ended.append("stopped")
            raise

    monkeypatch.setattr(service, "ask", slow)

    async def ask() -> None:
        async with Client(server(service)) as client:
            with anyio.move_on_after(0.3):
                await client.call_tool("explain", {"prompt": CAPITAL})
            with anyio.move_on_after(5):
                while not ended:
                    await anyio.sleep(0.02)

    anyio.run(ask)
    assert ended == ["stopped"]
