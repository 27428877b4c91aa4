"""The OpenAPI document: what the page's types are made from, and what machines may rely on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pellucid.web.openapi import document
from tests.web.served import MODEL, Server

WRITTEN = Path(__file__).resolve().parents[2] / "frontend" / "openapi.json"
STATES = ("done", "failed", "cancelled", "interrupted")


def test_the_written_document_is_the_servers_own() -> None:
    if not WRITTEN.is_file():
        pytest.skip("the front end is not part of this copy")
    assert json.loads(WRITTEN.read_text(encoding="utf-8")) == document(), (
        "write it anew: python -m pellucid.web.openapi > frontend/openapi.json"
    )


def test_every_body_has_an_example_and_every_error_its_shape() -> None:
    found = document()
    for path, operations in found["paths"].items():
        for method, operation in operations.items():
            assert operation["operationId"], path
            assert operation["description"], path
            if path == "/healthz":
                continue
            for status in ("400", "403", "404", "422", "503"):
                shape = operation["responses"][status]["content"]["application/json"]["schema"]
                assert shape == {"$ref": "#/components/schemas/Error"}, (method, path, status)
    for name in ("TokensBody", "JobBody", "RunChange", "Edit"):
        assert found["components"]["schemas"][name]["examples"]


def test_the_examples_are_true(server: Server) -> None:
    """What the document shows can be sent as it stands."""
    schemas = document()["components"]["schemas"]
    client = server.client
    for body in schemas["TokensBody"]["examples"]:
        client.post(f"/models/{MODEL}/tokens", body)
    for body in schemas["Edit"]["examples"]:
        client.post(f"/models/{MODEL}/tokens", {"prompt": "a", "edits": [body]})
    jobs = [client.post("/jobs", body) for body in schemas["JobBody"]["examples"]]
    assert [client.until(job["id"], *STATES)["state"] for job in jobs] == ["done"] * len(jobs)


@pytest.mark.slow
def test_no_request_that_fits_the_document_makes_the_server_stumble(server: Server) -> None:
    """Schemathesis makes requests from the document: no 500, and every refusal in the one shape."""
    schemathesis = pytest.importorskip("schemathesis")
    hypothesis = pytest.importorskip("hypothesis")
    server.client.get(f"/methods?model={MODEL}")
    found = document()
    del found["paths"]["/api/v1/jobs/{job}/events"]  # a stream that stays open while its job runs
    seen: dict[str, int] = {}

    def hold(case) -> None:
        """Send a case; half of them to the model that there is, so that more than its name is tried."""
        if "model" in (case.path_parameters or {}) and len(case.path_parameters["model"]) % 2:
            case.path_parameters["model"] = MODEL
        if isinstance(case.body, dict) and "model" in case.body and len(str(case.body)) % 2:
            case.body["model"] = MODEL
        reply = case.call(base_url=f"http://127.0.0.1:{server.port}", headers={"X-Pellucid": "1"}, timeout=60)
        label = f"{case.method} {case.path} {reply.status_code}"
        seen[label] = seen.get(label, 0) + 1
        assert reply.status_code < 500, (label, case.body, reply.text)
        if reply.status_code >= 400:
            assert set(reply.json()) == {"error", "kind"}

    limits = hypothesis.settings(
        max_examples=40, deadline=None, derandomize=True, database=None,
        phases=[hypothesis.Phase.explicit, hypothesis.Phase.generate],
        suppress_health_check=list(hypothesis.HealthCheck),
    )  # fmt: skip
    for operation in schemathesis.openapi.from_dict(found).get_all_operations():
        limits(hypothesis.given(case=operation.ok().as_strategy())(hold))()
    print(seen)
    for job in server.client.get("/jobs?state=queued&state=running&limit=200"):
        server.client("DELETE", f"/api/v1/jobs/{job['id']}")
    assert sum(seen.values()) > 200
