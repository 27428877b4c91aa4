"""Models, methods, tokens and jobs, asked of a real server."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from http.client import HTTPConnection

import numpy as np
import pytest

import pellucid
from tests.web.served import CAPITAL, LONG, MODEL, Client, Server


@pytest.fixture(scope="module")
def subject():
    return pellucid.load("zoo:tiny-lm")


def test_a_model_is_told_as_it_is(client: Client, subject) -> None:
    client.get(f"/methods?model={MODEL}")  # waits until it is loaded
    [model] = client.get("/models")
    assert model["state"] == "ready"
    assert (model["layers"], model["heads"], model["chat"]) == (subject.layers, 4, True)
    assert set(model["capabilities"]) == subject.capabilities
    assert model["hash"] == subject.weights_hash()


def test_every_method_is_listed_with_its_parameters(client: Client) -> None:
    found = {method["name"]: method for method in client.get(f"/methods?model={MODEL}")}
    assert set(found) == {"explain"} | {entry["name"] for entry in pellucid.methods() if entry["kind"] != "view"}
    steps = next(p for p in found["integrated_gradients"]["parameters"] if p["name"] == "steps")
    assert (steps["kind"], steps["default"], steps["min"]) == ("int", 32, 1)
    assert "subject" not in {p["name"] for method in found.values() for p in method["parameters"]}
    assert found["occlusion"]["available"]
    assert all(method["available"] != bool(method["reason"]) for method in found.values())


def test_tokens_and_what_comes_next(client: Client, subject) -> None:
    answer = client.post(f"/models/{MODEL}/tokens", {"prompt": CAPITAL, "top": 3, "watch": [" Paris", 7]})
    tokens = subject.encode(CAPITAL)
    assert [token["id"] for token in answer["tokens"]] == list(tokens.ids)
    assert "".join(CAPITAL[token["start"] : token["end"]] for token in answer["tokens"]) == CAPITAL
    assert answer["predictions"][0]["text"] == " Paris"
    assert answer["watched"][0] == answer["predictions"][0]
    assert answer["watched"][1]["id"] == 7
    explained = pellucid.explain(subject, CAPITAL, methods="gradient_x_input")
    assert answer["predictions"][0]["probability"] == pytest.approx(explained.predictions[0][1], abs=1e-6)


def test_every_position_says_what_comes_next(client: Client) -> None:
    answer = client.post(f"/models/{MODEL}/tokens", {"prompt": CAPITAL, "top": 2, "positions": "all"})
    assert len(answer["by_position"]) == len(answer["tokens"])
    last, alone = answer["by_position"][-1], answer["predictions"]
    assert [one["id"] for one in last] == [one["id"] for one in alone]
    assert [one["logit"] for one in last] == pytest.approx([one["logit"] for one in alone], abs=1e-4)
    assert [one["probability"] for one in last] == pytest.approx([one["probability"] for one in alone], abs=1e-5)


def test_a_click_on_a_cell_moves_the_answer_and_nobody_elses(client: Client) -> None:
    """The last layer of another prompt, put into the last position, is that prompt's answer."""
    other = "The capital of Italy is"
    edit = {"site": "blocks.5.resid_post", "how": "patch_from", "from": {"prompt": other}, "where": {"position": -1}}
    moved = client.post(f"/models/{MODEL}/tokens", {"prompt": CAPITAL, "edits": [edit], "top": 1})["predictions"]
    theirs = client.post(f"/models/{MODEL}/tokens", {"prompt": other, "top": 1})["predictions"]
    again = client.post(f"/models/{MODEL}/tokens", {"prompt": CAPITAL, "top": 1})["predictions"]
    assert moved[0]["text"] == theirs[0]["text"] == " Rome"
    assert moved[0]["logit"] == pytest.approx(theirs[0]["logit"], abs=1e-3)
    assert again[0]["text"] == " Paris"


def test_a_chat_is_a_prompt(client: Client) -> None:
    prompt = [{"role": "user", "content": "The capital of France"}]
    answer = client.post(f"/models/{MODEL}/tokens", {"prompt": prompt})
    assert {token["role"] for token in answer["tokens"]} == {"", "user"}


def test_an_explanation_is_the_librarys_own(client: Client, subject) -> None:
    found = client.answer("explain", parameters={"methods": ["occlusion"]}, target=" Paris", contrast=" London")
    right = pellucid.explain(subject, CAPITAL, methods="occlusion", target=" Paris", contrast=" London")
    assert found["kind"] == "Explanation"
    assert np.allclose(found["results"][0]["values"], right["occlusion"].values, atol=1e-4)
    assert found["provenance"]["weights_hash"] == subject.weights_hash()


def test_a_pair_a_metric_and_a_part(client: Client) -> None:
    pair = {"clean": CAPITAL, "corrupt": "The capital of Italy is"}
    patched = client.answer("activation_patching", pair=pair, target=" Paris", contrast=" Rome")
    assert patched["axes"] == ["layer", "position"]
    scores = client.answer("explain", parameters={"methods": ["occlusion"]}, target=" Paris")
    given = {"scores": {"result": scores["id"], "part": 0}}
    measured = client.answer("comprehensiveness", parameters=given, target=" Paris")
    assert measured["kind"] == "Scores"
    assert measured["evidence"][-1]["name"] == "comprehensiveness"


def test_jobs_side_by_side_do_not_mix_their_edits(client: Client, subject) -> None:
    """Eight jobs with their own edits, asked at once: each answers as if it had been alone."""
    edits = [
        [{"site": f"blocks.{layer}.attn.z", "how": "zero", "where": {"head": head}}]
        for layer in (0, 3)
        for head in range(4)
    ]
    jobs = [client.ask("gradient_x_input", target=" Paris", edits=edit) for edit in edits]
    for job, edit in zip(jobs, edits, strict=True):
        done = client.until(job["id"], "done", "failed")
        found = client.get(f"/results/{done['result']}")
        given = edit[0]
        own = subject.with_(pellucid.Edit(given["site"], given["how"], where=given["where"]))
        right = pellucid.run("gradient_x_input", own, CAPITAL, target=" Paris")
        assert np.allclose(found["values"], right.values, atol=1e-4)
        assert found["provenance"]["edits"] == list(right.provenance.edits)


def test_a_long_job_tells_how_far_it_is_and_is_cancelled(client: Client) -> None:
    job = client.post("/jobs", {**LONG, "prompt": " ".join([CAPITAL] * 6)})
    waiting = client.ask("gradient_norm")
    behind = client.ask("gradient_norm")
    assert (waiting["place"], behind["place"]) in ((0, 1), (1, 2))  # 1 and 2 while the long one is not yet claimed
    running = client.until(job["id"], "running")
    end = time.monotonic() + 60
    while not (running["done"] and running["fraction"]):
        running = client.get(f"/jobs/{job['id']}")
        assert time.monotonic() < end, running
        time.sleep(0.1)
    assert 0 < running["done"] <= running["total"]
    assert 0 < running["fraction"] < 1
    assert running["estimate"]["forwards"] > 0
    assert running["remaining"] > 0
    assert client("DELETE", f"/api/v1/jobs/{job['id']}").status == 200
    asked = time.monotonic()
    ended = client.until(job["id"], "cancelled", "done")
    assert ended["state"] == "cancelled"
    assert ended["result"] is None
    assert time.monotonic() - asked < 15
    assert client.until(waiting["id"], "done")["result"]
    assert client.until(behind["id"], "done")["result"]


def test_a_waiting_job_is_cancelled_at_once(client: Client) -> None:
    long = client.post("/jobs", {**LONG, "prompt": " ".join([CAPITAL] * 6)})
    waiting = client.ask("gradient_norm")
    assert client("DELETE", f"/api/v1/jobs/{waiting['id']}").json["state"] == "cancelled"
    client("DELETE", f"/api/v1/jobs/{long['id']}")
    client.until(long["id"], "cancelled")


def test_events_follow_a_job_to_its_end(server: Server, client: Client) -> None:
    job = client.ask("occlusion")
    connection = HTTPConnection("127.0.0.1", server.port, timeout=60)
    connection.request("GET", f"/api/v1/jobs/{job['id']}/events")
    text = connection.getresponse().read().decode()  # ends by itself
    connection.close()
    states = [json.loads(line[5:])["state"] for line in text.splitlines() if line.startswith("data:")]
    assert states[-1] == "done"
    assert set(states) <= {"queued", "running", "done"}


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"method": "occlusio", "prompt": CAPITAL}, "did you mean 'occlusion'?"),
        ({"method": "occlusion"}, "needs 'prompt'"),
        ({"method": "occlusion", "prompt": CAPITAL, "parameters": {"stepz": 1}}, "has no parameter 'stepz'"),
        ({"method": "occlusion", "prompt": CAPITAL, "parameters": {"target": 1}}, "is a field of the job"),
        ({"method": "comprehensiveness", "prompt": CAPITAL}, '{"result": "<id>"}'),
        ({"method": "occlusion", "pair": {"clean": "a", "corrupt": "b"}}, "not 'pair'"),
        ({"method": "occlusion", "prompt": "x" * 200_001}, "at most 200000"),
        ({"method": "integrated_gradients", "prompt": CAPITAL, "parameters": {"reduce": "best"}}, "choose one of"),
    ],
)
def test_a_job_that_cannot_be_is_refused_in_a_sentence(client: Client, body: dict, words: str) -> None:
    reply = client("POST", "/api/v1/jobs", {"model": MODEL, **body})
    assert reply.status == 400
    assert words in reply.json["error"]


def test_what_only_the_model_can_refuse_fails_the_job_in_a_sentence(client: Client) -> None:
    job = client.until(client.ask("occlusion", target=1_000_000)["id"], "done", "failed")
    assert job["state"] == "failed"
    assert "1000000" in job["message"]
    assert job["result"] is None


def test_an_edit_that_does_not_fit_is_the_askers_error(client: Client) -> None:
    edit = {"site": "blocks.99.attn.z", "how": "zero"}
    reply = client("POST", f"/api/v1/models/{MODEL}/tokens", {"prompt": CAPITAL, "edits": [edit]})
    assert reply.status == 400
    assert reply.json["kind"] == "SiteError"


def test_the_server_itself_needs_no_torch() -> None:
    code = "import sys, pellucid.web.serving, pellucid.web.hub; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
