"""One test per attack, against a real server."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest

from pellucid.core.errors import InputError
from pellucid.web.settings import Settings, model_ids
from tests.web.served import CAPITAL, MODEL, Client, Server, serving

TOKENS = f"/api/v1/models/{MODEL}/tokens"
HOSTILE = "</script><img src=x onerror=alert(1)> \u202eevil\u202c <|bos|>"


def raw(port: int, text: bytes) -> bytes:
    """Send bytes as they are and return all that comes back."""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as line:
        line.sendall(text)
        parts = []
        while part := line.recv(65536):
            parts.append(part)
    return b"".join(parts)


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example:80", "localhost.evil.example", "", "10.0.0.1"]
)
@pytest.mark.parametrize("path", ["/api/v1/models", "/", "/healthz"])
def test_a_rebound_name_is_refused(client: Client, host: str, path: str) -> None:
    reply = client("GET", path, headers={"Host": host})
    assert reply.status == 421
    assert reply.json["kind"] == "Host"


def test_two_hosts_are_refused(server: Server) -> None:
    text = b"GET /api/v1/models HTTP/1.1\r\nHost: 127.0.0.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n"
    assert b" 200 " not in raw(server.port, text).split(b"\r\n")[0]


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},  # another port of this machine
        {"X-Pellucid": None},
    ],
)
def test_a_page_of_another_site_cannot_write(client: Client, headers: dict) -> None:
    before = len(client.get("/jobs?limit=200"))
    body = {"model": MODEL, "method": "occlusion", "prompt": CAPITAL}
    reply = client("POST", "/api/v1/jobs", body, headers=headers)
    assert reply.status == 403
    assert len(client.get("/jobs?limit=200")) == before


def test_a_page_of_another_site_cannot_read(client: Client) -> None:
    assert client("GET", "/api/v1/runs", headers={"Sec-Fetch-Site": "cross-site"}).status == 403
    reply = client("GET", "/api/v1/runs")
    assert "access-control-allow-origin" not in reply.headers
    assert client("OPTIONS", "/api/v1/jobs", headers={"X-Pellucid": None}).status == 403  # no preflight passes


def test_the_servers_own_page_may_write(server: Server, client: Client) -> None:
    own = {"Origin": f"http://127.0.0.1:{server.port}", "Sec-Fetch-Site": "same-origin"}
    assert client("POST", TOKENS, {"prompt": CAPITAL}, headers=own).status == 200
    other_port = {"Origin": "http://127.0.0.1:1"}
    assert client("POST", TOKENS, {"prompt": CAPITAL}, headers=other_port).status == 403


@pytest.mark.parametrize(
    "path",
    [
        "/../../../../etc/passwd",
        "/static/../../../../etc/passwd",
        "/%2e%2e/%2e%2e/%2e%2e/%2e%2e/etc/passwd",
        "/..%2f..%2f..%2f..%2fetc%2fpasswd",
        "//etc/passwd",
        "/api/v1/results/..%2f..%2fetc%2fpasswd",
        "/api/v1/results/1%2f..%2f..",
        "/api/v1/results/1/file.json%2f..%2f..%2fetc",
        "/api/v1/jobs/..%2f..%2fetc%2fpasswd",
        "/app.py",
        "/../settings.py",
        "/%00",
    ],
)
def test_no_path_reaches_the_file_system(server: Server, path: str) -> None:
    text = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n".encode()
    answer = raw(server.port, text)
    assert int(answer.split(b" ")[1]) in (400, 404, 422)
    assert b"root:" not in answer
    assert b"import " not in answer


def test_a_model_is_only_one_of_the_list(client: Client) -> None:
    for name in ("gpt2", "..%2f..%2fmodels", "zoo:tiny-lm", "zoo:tiny-classifier"):
        assert client("POST", f"/api/v1/models/{name}/tokens", {"prompt": CAPITAL}).status in (404, 405)
    assert client("POST", "/api/v1/jobs", {"model": "/etc", "method": "occlusion", "prompt": CAPITAL}).status == 404


def test_an_oversized_body_is_refused(client: Client, server: Server) -> None:
    reply = client("POST", TOKENS, json.dumps({"prompt": "x" * 2_100_000}).encode())
    assert reply.status == 413
    lying = b"POST %s HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Pellucid: 1\r\nContent-Length: 99999999999\r\n\r\n{}"
    assert b" 413 " in raw(server.port, lying % TOKENS.encode()).split(b"\r\n")[0]


def test_an_oversized_body_in_chunks_is_refused(server: Server) -> None:
    head = b"POST %s HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Pellucid: 1\r\nTransfer-Encoding: chunked\r\n\r\n"
    chunk = b"%x\r\n%s\r\n" % (1_000_000, b"x" * 1_000_000)
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as line:
        line.sendall(head % TOKENS.encode())
        for _ in range(3):
            line.sendall(chunk)
        line.sendall(b"0\r\n\r\n")
        assert b" 413 " in line.recv(65536).split(b"\r\n")[0]


@pytest.mark.parametrize(
    "content",
    [
        b"[" * 100_000,
        b'{"prompt": ' + b"[" * 900 + b"]" * 900 + b"}",
        b'{"prompt": "\\ud800"}',
        b'{"prompt": NaN}',
        b'{"prompt": "a", "top": 1' + b"0" * 5000 + b"}",
        b"\xff\xfe",
        b"",
        b"null",
        b'{"prompt": "a", "edits": [{"site": "x", "how": "set", "value": 1e999}]}',
        b'{"prompt": "a", "edits": [{"site": "embed", "how": "zero", "where": {"position": 99999999999999999999}}]}',
    ],
)
def test_a_strange_body_is_refused_in_one_shape(client: Client, content: bytes) -> None:
    reply = client("POST", TOKENS, content)
    assert reply.status in (400, 422)
    assert set(reply.json) == {"error", "kind"}


def test_script_in_a_token_is_text(client: Client) -> None:
    reply = client("POST", TOKENS, {"prompt": HOSTILE})
    assert reply.json["text"] == HOSTILE
    assert reply.headers["content-type"] == "application/json"
    assert reply.headers["x-content-type-options"] == "nosniff"
    found = client.answer("gradient_norm", prompt=HOSTILE)
    page = client("GET", f"/api/v1/results/{found['id']}/file.html")
    assert b"<img src=x" not in page.content
    assert page.headers["content-disposition"].startswith("attachment")
    assert "sandbox" in page.headers["content-security-policy"]
    table = client("GET", f"/api/v1/results/{found['id']}/file.csv").content.decode()
    assert "\n=" not in table


def test_the_page_may_run_its_own_script_only(client: Client) -> None:
    reply = client("GET", "/")
    policy = reply.headers["content-security-policy"]
    assert reply.status == 200
    assert "default-src 'none'" in policy
    assert "script-src 'self';" in policy
    assert "frame-ancestors 'none'" in policy
    assert "connect-src 'self'" in policy
    assert "x-powered-by" not in reply.headers
    assert "server" not in reply.headers


def test_an_upload_is_data_and_never_run(client: Client) -> None:
    for content in (
        b"\x80\x04\x95",
        b"{}",
        b'{"kind": "Subject"}',
        b'{"kind": "Scores", "values": {"$tensor": "/etc/passwd"}}',
        b'{"kind": "Text", "title": 5, "text": []}',
        b'{"kind": "Table", "provenance": 3}',
    ):
        reply = client("POST", "/api/v1/upload", content)
        assert reply.status == 400, reply
        assert reply.json["error"].startswith("The upload")


def test_a_wrong_token_is_refused(tmp_path: Path) -> None:
    token = "a-token-of-twenty-signs"
    settings = ("--token", token, "--host", "127.0.0.1", "--model", "zoo:truth/fact")
    with serving(tmp_path / "store.db", *settings) as server:
        ask = server.client
        for given in (None, "Bearer", "Bearer wrong", f"Basic {token}", f"Bearer {token}x", "Bearer \xe9"):
            reply = ask("GET", "/api/v1/models", headers={"Authorization": given})
            assert reply.status == 401
            assert token not in reply.content.decode()
        assert ask("GET", "/api/v1/models", headers={"Authorization": f"Bearer {token}"}).status == 200
        assert ask("GET", "/").status == 200  # the page itself holds no secret; it asks for the token
        assert ask("GET", "/healthz").status == 200


@pytest.mark.parametrize("token", ["", "short", "with a space in it......"])
def test_others_are_let_in_with_a_good_token_only(token: str) -> None:
    with pytest.raises(InputError, match="token"):
        Settings(models={"m": "m"}, store="s", host="0.0.0.0", token=token)


def test_hosts_that_are_served() -> None:
    here = Settings(models={"m": "m"}, store="s", names=("explain.example",))
    assert all(map(here.serves, ("127.0.0.1:8000", "localhost", "[::1]:8000", "explain.example:443")))
    assert not any(
        map(here.serves, ("evil.example", "127.0.0.1.evil", "192.0.2.1", "", ":80", "[::1", "localhost@evil"))
    )
    everywhere = Settings(models={"m": "m"}, store="s", host="0.0.0.0", token="x" * 20)
    assert everywhere.serves("192.0.2.1:8000")  # an address cannot be rebound
    assert not everywhere.serves("evil.example:8000")


def test_an_id_of_a_model_is_no_path() -> None:
    ids = model_ids(["zoo:tiny-lm", "org/name", "/models/secret/name", "org-name", "../up"])
    assert list(ids) == ["zoo-tiny-lm", "org-name", "name", "org-name-2", "up"]
    assert not any("/" in name or ".." in name for name in ids)
    with pytest.raises(InputError, match="twice"):
        model_ids(["a", "a"])
