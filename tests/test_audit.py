"""`make audit` looks up every locked version in a vulnerability service, here a local server."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from packaging.utils import canonicalize_name

from tests.conftest import ROOT

pytest.importorskip("pip_audit")
LOCK = {
    canonicalize_name(name): version
    for name, _, version in (
        line.partition("==") for line in (ROOT / "constraints.txt").read_text().splitlines()
    )
}


@pytest.fixture
def service():
    """A local server with the protocol of OSV, a database of vulnerabilities.

    It reports a vulnerability for each package in `vulnerable`. It records in `asked` the version
    of each package that a query names.
    """

    class Answer(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            query = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            name = query["package"]["name"]
            server.asked[name] = query["version"]
            answer = {"vulns": [report(name)]} if name in server.vulnerable else {}
            content = json.dumps(answer).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    server.vulnerable, server.asked = set(), {}
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
    """Run the command of `make audit` against the service at `url`."""
    more = f"ARGS=--vulnerability-service osv --osv-url {url}"
    make = ["make", "--dry-run", "audit", more]
    shown = subprocess.run(make, cwd=ROOT, capture_output=True, text=True, check=True)
    (line,) = (line for line in shown.stdout.splitlines() if "pip_audit" in line)
    command = [sys.executable, *shlex.split(line)[1:]]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)


def test_every_locked_version_is_looked_up_and_a_vulnerable_one_fails(service):
    url = f"http://127.0.0.1:{service.server_port}/v1/query"
    done = audit(url)
    assert done.returncode == 0, done.stderr
    assert service.asked == LOCK
    service.vulnerable.add("pillow")
    done = audit(url)
    assert done.returncode == 1
    assert {"pillow", LOCK["pillow"], "PYSEC-0000-1", "999.0"} <= {*done.stdout.split()}


def test_an_audit_without_an_answer_fails():
    done = audit("http://127.0.0.1:9/v1/query")
    assert done.returncode == 1
    assert "pip_audit" in done.stderr
    assert "127.0.0.1" in done.stderr
