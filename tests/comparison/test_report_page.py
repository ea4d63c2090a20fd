"""The report page loads no other file, and is not wider than the browser window."""

from __future__ import annotations

import re

import pytest

from mixdet.comparison import Comparison, Plan
from mixdet.comparison.comparison_folder import RowRecord, RunRecord
from mixdet.comparison.report_page import report_as_html
from tests.browser import CHROMIUM, Browser

PARTS = ("", "_50", "_s", "_m", "_l")
PIXEL = "data:image/gif;base64,R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7"


@pytest.fixture
def page(tmp_path) -> str:
    plan = Plan(("plain.py", "a <b> & c.py"), (0, 1), command="python tools/compare.py")
    runs = [
        RunRecord(
            row=row,
            seed=seed,
            fingerprint="",
            metrics={f"coco/bbox_mAP{part}": 0.3 + 0.01 * seed for part in PARTS},
            curve=[[1, 0.1], [2, 0.3]],
            losses=[[50, 3.0], [100, 2.0]],
            seconds_per_iteration=0.5,
            environment={"device": "a card", "cores": 2, "threads": 1},
        )
        for row in plan.rows
        for seed in plan.seeds
    ]
    costs = {row: RowRecord(10, 20, (64, 64), (1.0, 2.0, 3.0), "a card") for row in plan.rows}
    images = {row: [PIXEL, PIXEL] for row in plan.rows}
    return report_as_html(Comparison(tmp_path, plan, runs, costs), "A title", images)


def test_the_page_refers_to_no_other_file(page):
    addresses = re.findall(r"""(?:src|href|url)\s*[=(]\s*["']?([^"')\s>]+)""", page)
    assert [a for a in addresses if not a.startswith(("#", "data:", "images["))] == []
    assert "a &lt;b&gt; &amp; c" in page


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium")
@pytest.mark.parametrize("width", [1280, 390], ids=["desktop", "phone"])
def test_the_page_fits_the_window_without_errors(page, width, tmp_path):
    file = tmp_path / "page.html"
    file.write_text(page)
    browser = Browser(tmp_path / "profile", width=width)
    try:
        browser.open(file.as_uri())
        browser.wait("document.readyState == 'complete' && document.images.length == 4")
        assert browser.run("innerWidth") == width
        assert browser.run("document.documentElement.scrollWidth") <= width
        row = browser.run("document.querySelector('tbody th').offsetHeight")
        assert row < 150, "the column of names is too narrow: the names break after every letter"
        assert browser.console == []
        assert browser.requests == [file.as_uri()]
    finally:
        browser.close()
