"""The documentation site builds without a warning, and its links and search work."""

from __future__ import annotations

import contextlib
import functools
import importlib
import pkgutil
import re
import subprocess
import sys
import threading
from html.parser import HTMLParser
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote

import pytest

import mixdet
from tests.browser import CHROMIUM, Browser
from tests.conftest import ROOT

pytest.importorskip("material", reason="the site needs the extra: pip install -e '.[docs]'")
pytestmark = pytest.mark.heavy


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """The folder of the built site."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder


class Html(HTMLParser):
    """The links of an HTML page, the addresses of the files that it loads, and its anchors."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.anchors: set[str] = set()
        self.feed(file.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.anchors |= {value for key in ("id", "name") if (value := values.get(key))}
        if tag == "a" and values.get("href"):
            self.links.append(values["href"])
        elif values.get("rel") not in ("canonical", "prev", "next"):
            self.loaded += [value for key in ("src", "href") if (value := values.get(key))]


def test_every_link_within_the_site_leads_to_a_page_and_an_anchor(site):
    pages = {file: Html(file) for file in site.rglob("*.html")}
    broken = []
    for file, page in pages.items():
        inside = [link for link in [*page.links, *page.loaded] if not re.match(r"\w+:", link)]
        for link in inside:
            target, _, anchor = unquote(link).partition("#")
            path = (site if target.startswith("/") else file.parent) / target.lstrip("/")
            path = path.resolve() if target else file
            path = path / "index.html" if path.is_dir() else path
            if not path.is_file() or (anchor and anchor not in pages[path].anchors):
                broken.append(f"{file.relative_to(site)}: {link}")
    assert not broken
    assert sum(len(page.links) for page in pages.values()) > 500


def test_pages_load_nothing_from_other_hosts(site):
    for file in site.rglob("*.html"):
        assert not [address for address in Html(file).loaded if "//" in address], file


def test_every_document_is_a_page(site):
    folder = ROOT / "docs"
    documents = [file.relative_to(folder) for file in folder.rglob("*.md")]
    documents += [Path(name) for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")]
    for document in documents:
        name = "index" if document.stem == "README" else document.stem
        page = (site / document.with_name(f"{name}.html")).read_text()
        assert re.search(r"<h1[ >]", page), document


def test_the_api_reference_describes_every_public_name_on_one_page(site):
    pages = {file: Html(file).anchors for file in site.glob("api/*.html")}
    names = {}
    for module in pkgutil.walk_packages(mixdet.__path__, "mixdet."):
        if module.name != "mixdet.__main__":
            package = importlib.import_module(module.name)
            for name in getattr(package, "__all__", ()):
                names.setdefault(id(getattr(package, name)), []).append(f"{module.name}.{name}")
    assert len(names) > 35
    for paths in names.values():
        described = [page for page, anchors in pages.items() if anchors & set(paths)]
        assert len(described) == 1, paths


@pytest.mark.skipif(not CHROMIUM, reason="needs a Chromium")
def test_the_search_finds_a_class(site, tmp_path):
    handler = functools.partial(SimpleHTTPRequestHandler, directory=str(site))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server, contextlib.ExitStack() as after:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        after.callback(server.shutdown)
        browser = Browser(tmp_path)
        after.callback(browser.close)
        browser.open(f"http://127.0.0.1:{server.server_port}/index.html?q=MixConv2d")
        result = "document.querySelector('.md-search-result__link[href*=\"MixConv2d\"]')"
        browser.wait(result)
        assert browser.run(f"{result}.pathname") == "/api/mixdet.models.html"
        assert browser.run(f"{result}.hash") == "#mixdet.models.MixConv2d"
        assert not browser.console
        assert {address.split("/")[2] for address in browser.requests} == {
            f"127.0.0.1:{server.server_port}"
        }
