"""What a request must be to reach the demo page's server.

Gradio serves far more than our page: it fetches addresses, passes requests on and runs more
functions than it shows. Here only what the page itself asks for goes through, in sizes that a
image can have, and only from a page of ours: any site that a browser has open can send to the
loopback address, and a name of its own can be made to point there.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

API = "/gradio_api"
MAX_MESSAGE = 64 * 1024  # bytes of a request that is no upload
ROUTES = re.compile(
    r"(GET|HEAD) /(config|theme\.css|manifest\.json|favicon\.ico|robots\.txt|(static|assets)/.+)?"
    rf"|GET {API}/(info|app_id|theme\.css|startup-events|upload_progress|queue/data|heartbeat/\w+)"
    rf"|POST {API}/(upload|queue/join|cancel|reset)"
)
# The browser, too, is told to ask nobody else
POLICY = "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; frame-ancestors 'none'"


class Gate:
    """An ASGI application around another, which sees only requests that pass.

    Args:
        app: The application.
        folder: Where uploads lie: the only files that a request may name.
        max_upload: Bytes of an upload.
    """

    def __init__(self, app: Any, folder: str | os.PathLike, max_upload: int) -> None:
        self.app, self.folder, self.max_upload = app, Path(folder).resolve(), max_upload

    async def __call__(self, scope: dict, receive: Any, send: Any) -> None:
        """Pass the request on, or answer it with a status and one line."""
        if scope["type"] == "lifespan":
            return await self.app(scope, receive, send)
        if scope["type"] != "http":
            raise RuntimeError(f"the demo page has no {scope['type']}")  # the server closes it
        if refusal := self._refusal(scope):
            return await _answer(send, *refusal)
        if scope["path"] == f"{API}/queue/join":
            message = await _body(receive)
            if message is None or not self._names_uploads_only(message):
                return await _answer(send, 403, "only images that were uploaded are taken")
            receive = _again(message, receive)

        async def send_with_policy(event: dict) -> None:
            if event["type"] == "http.response.start":
                extra = (b"content-security-policy", POLICY.encode())
                event = {**event, "headers": [*event.get("headers", ()), extra]}
            await send(event)

        await self.app(scope, receive, send_with_policy)

    def _refusal(self, scope: dict) -> tuple[int, str] | None:
        """Status and reason, where the request's head is reason enough."""
        headers = {
            key.decode("latin-1"): value.decode("latin-1") for key, value in scope["headers"]
        }
        host = headers.get("host", "")
        if not re.fullmatch(r"(127\.0\.0\.1|localhost)(:\d+)?", host):
            return 403, "this page is for this machine alone"
        if headers.get("origin", f"http://{host}") != f"http://{host}":
            return 403, "this page answers no other page"
        method, path = scope["method"], scope["path"]
        file = path.removeprefix(f"{API}/file=")
        if file != path and method in ("GET", "HEAD"):
            return None if self._is_ours(file) else (404, "no such file")
        if not ROUTES.fullmatch(f"{method} {path}"):
            return 404, "no such page"
        if method == "POST":
            limit = MAX_MESSAGE + (self.max_upload if path == f"{API}/upload" else 0)
            length = headers.get("content-length", "")
            if not length.isdecimal() or "transfer-encoding" in headers:
                return 411, "the length has to be stated"
            if int(length) > limit:
                return 413, f"more than {limit:,} bytes"
        return None

    def _names_uploads_only(self, message: bytes) -> bool:
        """Whether every file in it is one of ours; gradio would fetch an address itself."""
        try:
            waiting = [json.loads(message)]
        except (ValueError, RecursionError):
            return False
        while waiting:
            value = waiting.pop()
            if isinstance(value, dict):
                if "path" in value and not self._is_ours(value["path"]):
                    return False
                waiting.extend(value.values())
            elif isinstance(value, list):
                waiting.extend(value)
        return True

    def _is_ours(self, path: Any) -> bool:
        try:
            return Path(path).resolve().is_relative_to(self.folder)
        except (TypeError, ValueError, OSError):
            return False


async def _answer(send: Any, status: int, reason: str) -> None:
    body = json.dumps({"detail": reason}).encode()
    headers = [(b"content-type", b"application/json"), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def _body(receive: Any) -> bytes | None:
    """The whole body, whose length is known to be small; None if the client went away."""
    parts = b""
    while True:
        event = await receive()
        if event["type"] != "http.request":
            return None
        parts += event.get("body", b"")
        if not event.get("more_body"):
            return parts


def _again(body: bytes, receive: Any) -> Any:
    """A `receive` that gives the body once more, then whatever the client sends."""
    events = [{"type": "http.request", "body": body, "more_body": False}]

    async def replay() -> dict:
        return events.pop() if events else await receive()

    return replay
