"""`Gate` passes the demo page's own requests to the server and refuses all other requests."""

from __future__ import annotations

import asyncio
import json

import pytest

from mixdet.demo.gate import MAX_MESSAGE, Gate

UPLOAD = 1 << 20
JOIN = "/gradio_api/queue/join"


@pytest.fixture
def ask(tmp_path):
    """A function that sends a request through `Gate` to an application.

    It returns the status of the response and the body that reached the application. The body is
    None if `Gate` refused the request.
    """
    received = []

    async def app(scope, receive, send):
        event = await receive()
        received.append(event["body"])
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    def ask(method, path, body=b"", host="127.0.0.1:7860", **headers):
        headers = {"host": host, "content-length": str(len(body)), **headers}
        scope = {
            "type": "http",
            "method": method,
            "path": path,
            "headers": [(key.encode(), value.encode()) for key, value in headers.items() if value],
        }
        parts = [body[:7], body[7:]]
        sent = []

        async def receive():
            part = parts.pop(0)
            return {"type": "http.request", "body": part, "more_body": bool(parts)}

        async def send(event):
            sent.append(event)

        received.clear()
        asyncio.run(Gate(app, tmp_path, UPLOAD)(scope, receive, send))
        return sent[0]["status"], received[0] if received else None

    return ask


@pytest.mark.parametrize(
    "path",
    ["/", "/config", "/assets/index.js", "/gradio_api/queue/data", "/gradio_api/heartbeat/a"],
)
def test_the_routes_of_the_page_pass(ask, path):
    assert ask("GET", path)[0] == 200


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/gradio_api/file=http://example.com/a.png"),
        ("GET", "/gradio_api/file=/etc/passwd"),
        ("GET", "/gradio_api/proxy=http://example.com/"),
        ("GET", "/gradio_api/file/etc/passwd"),
        ("GET", "/monitoring"),
        ("GET", "/docs"),
        ("POST", "/gradio_api/run/predict"),
        ("POST", "/gradio_api/call/on_image"),
        ("POST", "/gradio_api/component_server"),
        ("POST", "/gradio_api/vibe-edit"),
        ("PUT", "/"),
    ],
)
def test_other_routes_of_gradio_are_refused(ask, method, path):
    assert ask(method, path) == (404, None)


def test_only_files_of_the_folder_are_served(ask, tmp_path):
    assert ask("GET", f"/gradio_api/file={tmp_path}/a/b.png")[0] == 200
    assert ask("GET", f"/gradio_api/file={tmp_path}/../b.png")[0] == 404
    (tmp_path / "link").symlink_to("/etc/passwd")
    assert ask("GET", f"/gradio_api/file={tmp_path}/link")[0] == 404
    assert ask("GET", "/gradio_api/file=\0")[0] == 404


@pytest.mark.parametrize("host", ["example.com", "127.0.0.1.example.com", "10.0.0.1:7860", ""])
def test_other_hosts_are_refused(ask, host):
    assert ask("GET", "/", host=host) == (403, None)


@pytest.mark.parametrize("origin", ["https://example.com", "null", "http://127.0.0.1:80"])
def test_other_origins_are_refused(ask, origin):
    assert ask("POST", "/gradio_api/upload", b"image", origin=origin) == (403, None)
    assert ask("POST", "/gradio_api/upload", b"image", origin="http://127.0.0.1:7860")[0] == 200


def test_requests_above_the_size_limits_are_refused(ask):
    def upload(length):
        return ask("POST", "/gradio_api/upload", **{"content-length": length})[0]

    assert upload(str(UPLOAD)) == 200
    assert upload(str(UPLOAD + MAX_MESSAGE + 1)) == 413
    assert [upload(length) for length in ("", "-1", "1e3", "\u0661")] == [411] * 4
    assert ask("POST", JOIN, b"[" * (MAX_MESSAGE + 1)) == (413, None)
    assert ask("POST", JOIN, b"[]", **{"transfer-encoding": "chunked"}) == (411, None)


class TestMessages:
    def test_a_message_with_an_uploaded_file_reaches_the_application_unchanged(self, ask, tmp_path):
        file = {"path": str(tmp_path / "a.png"), "meta": {"_type": "gradio.FileData"}}
        body = json.dumps({"data": [file, 0.3], "fn_index": 0}).encode()
        assert ask("POST", JOIN, body) == (200, body)

    @pytest.mark.parametrize(
        "path", ["/etc/passwd", "http://example.com/a.png", "../a.png", "", 1, None, ["a"], "\0"]
    )
    def test_any_other_file_is_refused(self, ask, path):
        body = json.dumps({"data": [{"deep": [{"path": path}]}]}).encode()
        assert ask("POST", JOIN, body) == (403, None)

    @pytest.mark.parametrize("body", [b"", b"\xff", b"{", b"[" * 60_000])
    def test_invalid_json_is_refused(self, ask, body):
        assert ask("POST", JOIN, body) == (403, None)

    def test_escaped_url_is_refused(self, ask):
        body = b'{"data": [{"p\\u0061th": "\\u0068ttp://example.com"}]}'
        assert ask("POST", JOIN, body) == (403, None)
