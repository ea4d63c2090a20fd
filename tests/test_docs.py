"""The documents: their links lead somewhere, and their figures show what the code says."""

from __future__ import annotations

import re
import runpy

import pytest

from tests.conftest import ROOT

PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_to_files_lead_somewhere(page):
    targets = re.findall(r"\]\(([^)#\s]+)", page.read_text())
    inside = [target for target in targets if "://" not in target and "mailto:" not in target]
    missing = [target for target in inside if not (page.parent / target).exists()]
    assert not missing


def test_figures_are_drawn_from_the_tables(tmp_path, monkeypatch):
    module = runpy.run_path(str(ROOT / "docs/draw_figures.py"))
    monkeypatch.setitem(module["main"].__globals__, "FIGURES", tmp_path)
    module["main"]()
    drawn = {path.name: path.read_text() for path in tmp_path.glob("*.svg")}
    assert drawn.keys() == {path.name for path in (ROOT / "docs/figures").glob("*.svg")}
    for name, text in drawn.items():
        committed = (ROOT / "docs/figures" / name).read_text()
        words = re.compile(r">([^<>]*\w[^<>]*)</text>")
        assert words.findall(text) == words.findall(committed), f"draw {name} again"
