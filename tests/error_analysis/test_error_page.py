"""The page has all parts, loads no other file, and is not wider than the browser window."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
from PIL import Image

from mixdet.error_analysis import analyze_errors, errors_as_dict, write_error_files
from mixdet.error_analysis.error_page import error_page_html
from mixdet.errors import MixDetError
from tests.browser import CHROMIUM, Browser
from tests.error_analysis.conftest import detect

BOX, FAR = (10, 10, 40, 40), (70, 70, 20, 20)


@pytest.fixture
def errors(scored):
    data = scored([(1, 0, BOX), (1, 1, FAR), (2, 0, FAR), (3, 2, BOX)], (1, 2, 3))
    data.annotations.cats[7]["name"] = "a <b> & c"
    found = detect((1, 0, BOX, 0.9), (2, 1, FAR, 0.95), (2, 0, BOX, 0.92), (3, 2, BOX, 0.9))
    return analyze_errors(data, found)


@pytest.fixture
def files(tmp_path):
    paths = {number: tmp_path / f"{number}.png" for number in (1, 2, 3)}
    for path in paths.values():
        Image.fromarray(np.full((100, 120, 3), 128, np.uint8)).save(path)
    return paths


def test_the_page_has_all_parts_and_refers_to_no_other_file(errors, files):
    page = error_page_html(errors, "Errors <1>", files)
    addresses = re.findall(r"""(?:src|href|url)\s*[=(]\s*["']?([^"')\s>]+)""", page)
    assert [a for a in addresses if not a.startswith(("#", "data:"))] == []
    assert "<title>Errors &lt;1&gt;" in page
    assert "a &lt;b&gt; &amp; c" in page
    assert "<b> & c" not in page
    assert page.count("<svg") == 4
    assert page.count("<img") == 2  # the third image has no error
    assert page.index("2.png: 1 of 1 objects missed, 2 wrong") < page.index("1.png: 1 of 2 objects")
    assert "a &lt;b&gt; &amp; c taken for dog: 1" in page
    assert 'data-share="50.0" data-count="1"' in page


def test_the_number_of_images_is_limited_and_0_needs_no_files(errors, files):
    assert error_page_html(errors, "", files, images=1).count("<img") == 1
    page = error_page_html(errors, "", {}, images=0)
    assert page.count("<img") == 0
    assert "Images with most errors" not in page


def test_an_image_that_is_missing_is_refused(errors, files, tmp_path):
    files[2].unlink()
    with pytest.raises(MixDetError, match=r"2\.png"):
        write_error_files(errors, tmp_path / "page.html", "", files)
    assert not (tmp_path / "page.html").exists()


def test_the_json_file_is_beside_the_page(errors, files, tmp_path):
    page = write_error_files(errors, tmp_path / "page.html", "A title", files)
    assert "A title" in page.read_text()
    assert json.loads((tmp_path / "page.json").read_text()) == errors_as_dict(errors)


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium")
@pytest.mark.parametrize("width", [1280, 390], ids=["desktop", "phone"])
def test_the_page_fits_the_window_and_switches_the_matrix(errors, files, width, tmp_path):
    page = write_error_files(errors, tmp_path / "page.html", "A title", files)
    browser = Browser(tmp_path / "profile", width=width)
    cell = "getComputedStyle(document.querySelector('[data-share]'), '::after').content"
    try:
        browser.open(page.as_uri())
        browser.wait("document.readyState == 'complete' && document.images.length == 2")
        assert browser.run("document.documentElement.scrollWidth") <= width
        assert browser.run(cell) == '"50.0"'
        browser.run("document.getElementById('counts').click()")
        assert browser.run(cell) == '"1"'
        assert browser.console == []
        assert browser.requests == [page.as_uri()]
    finally:
        browser.close()
