"""What stands before every request: who may ask, from where, and how much; and what every answer forbids a browser."""

from __future__ import annotations

import hmac
import json
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from pellucid.web.settings import Settings

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

API = "/api/"
UPLOAD = "/api/v1/upload"
WRITE_HEADER = "x-pellucid"
READS = ("GET", "HEAD")
# Nothing from elsewhere, no inline script or style, no frames, no forms.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; "
    "font-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
FILE_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; sandbox"
HEADERS = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
}


class Refusal(Exception):
    """A request that is not answered: its status, kind and sentence."""

    def __init__(self, status: int, kind: str, sentence: str) -> None:
        super().__init__(sentence)
        self.status, self.kind = status, kind


class Guard:
    """An ASGI application around another one that refuses what should not be asked."""

    def __init__(self, app: App, settings: Settings) -> None:
        self.app, self.settings = app, settings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Check a request, read its body up to the limit, and hand it on."""
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
            return
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = _headers(scope)
        answer = _with_headers(send, "no-store" if scope["path"].startswith(API) else "no-cache")
        try:
            self._check(scope, headers)
            if scope["method"] not in READS:
                receive = await self._limited(scope, headers, receive)
        except Refusal as refusal:
            await _refuse(answer, refusal)
            return
        await self.app(scope, receive, answer)

    def _check(self, scope: Scope, headers: dict[str, list[str]]) -> None:
        hosts = headers.get("host", [])
        if len(hosts) != 1 or not self.settings.serves(hosts[0]):
            raise Refusal(
                421, "Host",
                f"The host {(hosts or [''])[0][:60]!r} is not this server; open it by the address that it printed, or "
                "start it with --allow-host.",
            )  # fmt: skip
        origins = headers.get("origin", [])
        if origins and (len(origins) != 1 or origins[0].partition("://")[2] != hosts[0]):
            raise Refusal(403, "Origin", "A page of another origin asked; only the server's own page may.")
        path, site = scope["path"], headers.get("sec-fetch-site", ["none"])
        if path.startswith(API) and any(value not in ("same-origin", "none") for value in site):
            raise Refusal(403, "Origin", "A page of another site asked; only the server's own page may.")
        if scope["method"] not in READS and WRITE_HEADER not in headers:
            raise Refusal(403, "Header", "A request that changes something needs the header X-Pellucid: 1; add it.")
        if self.settings.token and path.startswith(API):
            self._check_token(headers)

    def _check_token(self, headers: dict[str, list[str]]) -> None:
        given = headers.get("authorization", [""])[0]
        scheme, _, token = given.partition(" ")
        right = hmac.compare_digest(token.strip().encode(), self.settings.token.encode())
        if scheme.lower() != "bearer" or not right:
            raise Refusal(401, "Token", "The access token is missing or wrong; send Authorization: Bearer <token>.")

    async def _limited(self, scope: Scope, headers: dict[str, list[str]], receive: Receive) -> Receive:
        """Read the body of a request, at most as much as is allowed, and return what gives it to the application."""
        most = self.settings.largest_upload if scope["path"] == UPLOAD else self.settings.largest_body
        too_large = Refusal(413, "Size", f"The body is larger than the {most} bytes that are taken; send less.")
        length = headers.get("content-length", ["0"])[0]
        drained = most + self.settings.largest_upload
        if not length.isdecimal() or len(length) > 18 or int(length) > drained:
            raise too_large
        parts: list[bytes] = []
        size, more = 0, True
        while more and size <= drained:  # what is too much is still read, so that the sender hears the answer
            message = await receive()
            if message["type"] == "http.disconnect":
                break
            size, more = size + len(message.get("body", b"")), message.get("more_body", False)
            if size <= most:
                parts.append(message.get("body", b""))
        if size > most:
            raise too_large
        body: Message = {"type": "http.request", "body": b"".join(parts), "more_body": False}
        given = False

        async def replayed() -> Message:
            nonlocal given
            if given:
                return await receive()
            given = True
            return body

        return replayed


def _headers(scope: Scope) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name, value in scope["headers"]:
        found.setdefault(name.decode("latin-1").lower(), []).append(value.decode("latin-1"))
    return found


def _with_headers(send: Send, cache: str) -> Send:
    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            given = {name.lower() for name, _ in message.get("headers", [])}
            extra = {**HEADERS, "content-security-policy": POLICY, "cache-control": cache}
            message["headers"] = [
                *message.get("headers", []),
                *((k.encode(), v.encode()) for k, v in extra.items() if k.encode() not in given),
            ]
        await send(message)

    return sending


async def _refuse(send: Send, refusal: Refusal) -> None:
    content = json.dumps({"error": str(refusal), "kind": refusal.kind}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(content)).encode())]
    if refusal.status == 413:
        headers.append((b"connection", b"close"))
    if refusal.status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    await send({"type": "http.response.start", "status": refusal.status, "headers": headers})
    await send({"type": "http.response.body", "body": content})
