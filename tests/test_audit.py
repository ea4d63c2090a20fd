"""`make audit` compares the locked versions with known vulnerabilities, here of a local service."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from packaging.utils import canonicalize_name

pytest.importorskip("pip_audit")
ROOT = Path(__file__).parents[1]
LOCK = {
    canonicalize_name(name): version
    for name, _, version in (
        line.partition("==") for line in (ROOT / "constraints.txt").read_text().splitlines()
    )
}


@pytest.fixture
def service():
    """A server with OSV's protocol.

    Its attribute `known` has the vulnerable packages, `asked` the versions that it was asked for.
    """

    class Answer(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            query = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            name = query["package"]["name"]
            server.asked[name] = query["version"]
            answer = {"vulns": [report(name)]} if name in server.known else {}
            content = json.dumps(answer).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    server.known, server.asked = set(), {}
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def report(name: str) -> dict:
    ranges = [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "999.0"}]}]
    package = {"name": name, "ecosystem": "PyPI"}
    return {
        "id": "PYSEC-0000-1",
        "summary": "made up",
        "details": "made up",
        "modified": "2026-01-01T00:00:00Z",
        "published": "2026-01-01T00:00:00Z",
        "affected": [{"package": package, "ranges": ranges, "versions": [LOCK[name]]}],
    }


def audit(url: str) -> subprocess.CompletedProcess:
    """Run the command of `make audit` with the address of a service."""
    more = f"ARGS=--vulnerability-service osv --osv-url {url}"
    make = ["make", "--dry-run", "audit", more]
    shown = subprocess.run(make, cwd=ROOT, capture_output=True, text=True, check=True)
    (line,) = (line for line in shown.stdout.splitlines() if "pip_audit" in line)
    command = [sys.executable, *shlex.split(line)[1:]]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)


def test_every_locked_version_is_asked_for_and_a_known_one_fails(service):
    url = f"http://127.0.0.1:{service.server_port}/v1/query"
    done = audit(url)
    assert done.returncode == 0, done.stderr
    assert service.asked == LOCK
    service.known.add("pillow")
    done = audit(url)
    assert done.returncode == 1
    assert {"pillow", LOCK["pillow"], "PYSEC-0000-1", "999.0"} <= {*done.stdout.split()}


def test_no_answer_is_no_pass():
    done = audit("http://127.0.0.1:9/v1/query")
    assert done.returncode == 1
    assert "pip_audit" in done.stderr
    assert "127.0.0.1" in done.stderr
