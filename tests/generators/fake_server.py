"""An OpenAI-like server in a thread, on this machine only, that misbehaves as a test tells it to."""

from __future__ import annotations

import http.server
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

# What the server does with one request: (status, headers, body), or "drop" to close the connection without a word.
Answer = tuple[int, dict[str, str], bytes] | str
Behaviour = Callable[[dict[str, Any], int], Answer]


def completion(texts: list[str], usage: tuple[int, int] | None = (10, 5), logprobs: Any = None) -> Answer:
    """A right answer of the chat endpoint."""
    choices = [
        {"index": i, "finish_reason": "stop", "message": {"role": "assistant", "content": text}, "logprobs": logprobs}
        for i, text in enumerate(texts)
    ]
    body: dict[str, Any] = {"id": "x", "object": "chat.completion", "created": 0, "model": "m", "choices": choices}
    if usage:
        body["usage"] = {"prompt_tokens": usage[0], "completion_tokens": usage[1], "total_tokens": sum(usage)}
    return 200, {}, json.dumps(body).encode()


def error(status: int, message: str = "no", headers: dict[str, str] | None = None, **more: Any) -> Answer:
    return status, headers or {}, json.dumps({"error": {"message": message, "type": "x", **more}}).encode()


def first_token(tokens: dict[str, float]) -> dict[str, Any]:
    """The log-probabilities of a first token, as the chat endpoint gives them."""
    listed = [{"token": token, "logprob": value, "bytes": None} for token, value in tokens.items()]
    return {"content": [{**listed[0], "top_logprobs": listed}]}


class FakeServer:
    """Counts what it was asked; `behaviour(body, number)` answers request `number` (from 0)."""

    def __init__(self, behaviour: Behaviour) -> None:
        self.behaviour = behaviour
        self.bodies: list[dict[str, Any]] = []
        self.paths: list[str] = []
        self.headers: list[dict[str, str]] = []
        self.times: list[float] = []
        self.at_once = self.most_at_once = 0
        self.lock = threading.Lock()
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                outer.answer(self)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}/v1"

    def answer(self, handler: http.server.BaseHTTPRequestHandler) -> None:
        body = json.loads(handler.rfile.read(int(handler.headers["content-length"])))
        with self.lock:
            number = len(self.bodies)
            self.bodies.append(body)
            self.paths.append(handler.path)
            self.headers.append({name.lower(): value for name, value in handler.headers.items()})
            self.times.append(time.monotonic())
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            answer = self.behaviour(body, number)
        finally:
            with self.lock:
                self.at_once -= 1
        handler.close_connection = True
        if isinstance(answer, str):
            return
        status, headers, content = answer
        handler.send_response(status)
        for name, value in {"content-type": "application/json", "content-length": str(len(content)), **headers}.items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(content)


@contextmanager
def serving(behaviour: Behaviour) -> Iterator[FakeServer]:
    """Run a fake server for the time of the context."""
    fake = FakeServer(behaviour)
    thread = threading.Thread(target=fake.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield fake
    finally:
        fake.server.shutdown()
        fake.server.server_close()
        thread.join()
