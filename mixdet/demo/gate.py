"""Refuse the requests to the demo page's server that do not come from the page.

Gradio serves more than the page: it fetches URLs, forwards requests and runs functions that the
page does not show. Any web site that is open in the browser can send requests to the loopback
address. The owner of a domain can also let the domain's name resolve to that address (DNS
rebinding). So a request must name this machine as its host, come from the page, ask for a route of
the page and have a limited size.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

API = "/gradio_api"
MAX_MESSAGE = 64 * 1024  # largest size in bytes of a request that uploads no file
ROUTES = re.compile(
    r"(GET|HEAD) /(config|theme\.css|manifest\.json|favicon\.ico|robots\.txt|(static|assets)/.+)?"
    rf"|GET {API}/(info|app_id|theme\.css|startup-events|upload_progress|queue/data|heartbeat/\w+)"
    rf"|POST {API}/(upload|queue/join|cancel|reset)"
)
# The value of a header that forbids the browser to load anything from another server.
CONTENT_SECURITY_POLICY = (
    "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; frame-ancestors 'none'"
)


class Gate:
    """An ASGI application that passes the permitted requests on to another application.

    Args:
        app: The other application.
        folder: The folder of the uploads. Requests that name any other file are refused.
        max_upload: Largest size of an upload in bytes.
    """

    def __init__(self, app: Any, folder: str | os.PathLike, max_upload: int) -> None:
        self.app, self.folder, self.max_upload = app, Path(folder).resolve(), max_upload

    async def __call__(self, scope: dict, receive: Any, send: Any) -> None:
        """Pass the request on, or refuse it with an HTTP status and a reason."""
        if scope["type"] == "lifespan":
            return await self.app(scope, receive, send)
        if scope["type"] != "http":
            # The server closes the connection if this function raises an exception.
            raise RuntimeError(f"the demo page does not support {scope['type']}")
        if refusal := self._refusal(scope):
            return await _answer(send, *refusal)
        if scope["path"] == f"{API}/queue/join":
            message = await _read_body(receive)
            if message is None or not self._names_uploads_only(message):
                return await _answer(send, 403, "the message may only name uploaded images")
            receive = _replay(message, receive)

        async def send_with_policy(event: dict) -> None:
            if event["type"] == "http.response.start":
                extra = (b"content-security-policy", CONTENT_SECURITY_POLICY.encode())
                event = {**event, "headers": [*event.get("headers", ()), extra]}
            await send(event)

        await self.app(scope, receive, send_with_policy)

    def _refusal(self, scope: dict) -> tuple[int, str] | None:
        """Return status and reason if the request's method, path or headers are not permitted."""
        headers = {
            key.decode("latin-1"): value.decode("latin-1") for key, value in scope["headers"]
        }
        host = headers.get("host", "")
        if not re.fullmatch(r"(127\.0\.0\.1|localhost)(:\d+)?", host):
            return 403, "this page answers requests to 127.0.0.1 and localhost only"
        if headers.get("origin", f"http://{host}") != f"http://{host}":
            return 403, "this page does not answer requests from other pages"
        method, path = scope["method"], scope["path"]
        file = path.removeprefix(f"{API}/file=")
        if file != path and method in ("GET", "HEAD"):
            return None if self._is_upload(file) else (404, "no such file")
        if not ROUTES.fullmatch(f"{method} {path}"):
            return 404, "no such page"
        if method == "POST":
            limit = MAX_MESSAGE + (self.max_upload if path == f"{API}/upload" else 0)
            length = headers.get("content-length", "")
            if not length.isdecimal() or "transfer-encoding" in headers:
                return 411, "the request must state its Content-Length"
            if int(length) > limit:
                return 413, f"the request is larger than {limit:,} bytes"
        return None

    def _names_uploads_only(self, message: bytes) -> bool:
        """Return whether every file in a JSON message is an upload.

        Without this check, gradio would read other files of this machine and fetch URLs.
        """
        try:
            values = [json.loads(message)]
        except (ValueError, RecursionError):
            return False
        while values:
            value = values.pop()
            if isinstance(value, dict):
                if "path" in value and not self._is_upload(value["path"]):
                    return False
                values.extend(value.values())
            elif isinstance(value, list):
                values.extend(value)
        return True

    def _is_upload(self, path: Any) -> bool:
        try:
            return Path(path).resolve().is_relative_to(self.folder)
        except (TypeError, ValueError, OSError):
            return False


async def _answer(send: Any, status: int, reason: str) -> None:
    body = json.dumps({"detail": reason}).encode()
    headers = [(b"content-type", b"application/json"), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def _read_body(receive: Any) -> bytes | None:
    """Return the whole body of a request, or None if the client has disconnected."""
    body = b""
    while True:
        event = await receive()
        if event["type"] != "http.request":
            return None
        body += event.get("body", b"")
        if not event.get("more_body"):
            return body


def _replay(body: bytes, receive: Any) -> Any:
    """Return a new `receive`, which returns the body first and then the client's later events."""
    events = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive_again() -> dict:
        return events.pop() if events else await receive()

    return receive_again
