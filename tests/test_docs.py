"""The documents: their links lead somewhere, and their figures show what the code says."""

from __future__ import annotations

import importlib
import pkgutil
import re
import runpy
import shlex
import subprocess
import sys
from typing import TypeVar

import pytest
import torch

import mixdet
from mixdet.analysis.benchmark.report import content, insert, plot, read_record
from tests.conftest import ROOT

PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_to_files_lead_somewhere(page):
    prose = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.S | re.M)
    targets = re.findall(r"\]\(([^)#\s]+)", prose)
    inside = [target for target in targets if "://" not in target and "mailto:" not in target]
    missing = [target for target in inside if not (page.parent / target).exists()]
    assert not missing


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_files_that_are_named_are_there(page):
    pattern = r"(?:`|python |^)((?:configs|docs|mixdet|tests|tools)/[\w/.-]+)(?=[`\s:])"
    named = re.findall(pattern, page.read_text(), flags=re.M)
    assert not [name for name in named if not (ROOT / name).exists()]


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


def test_security_names_tests_that_are_there():
    named = re.findall(r"`(tests/[^`]+\.py)::(\w+)`", (ROOT / "SECURITY.md").read_text())
    assert len(named) >= 8
    for file, test in named:
        assert f"def {test}(" in (ROOT / file).read_text(), f"{file}::{test}"


def test_the_backbone_of_contributing_trains(tmp_path, monkeypatch):
    from mmdet.registry import MODELS

    from mixdet.engine.config import read_config

    page = (ROOT / "CONTRIBUTING.md").read_text()
    for block in re.findall(r"```python\n# (.*?)```", page, flags=re.S):
        name, _, code = block.partition("\n")
        (tmp_path / name.removeprefix("configs/")).write_text(code)
    config = tmp_path / "my_backbone_coco.py"
    base = f"{(ROOT / 'configs').as_posix()}/ssdlite"
    config.write_text(config.read_text().replace('"ssdlite', f'"{base}'))
    monkeypatch.syspath_prepend(tmp_path)
    model = MODELS.build(read_config(config).model)
    maps = model.extract_feat(torch.zeros(2, 3, 320, 320))
    assert [tuple(each.shape[1:]) for each in maps[:2]] == [(64, 20, 20), (128, 10, 10)]
    assert len(model.bbox_head(maps)[0]) == 6


@pytest.mark.heavy
def test_the_api_reference_has_every_public_name_and_no_warning(tmp_path):
    pytest.importorskip("pdoc")
    make = ["make", "-n", "--no-print-directory", "docs"]
    recipe = subprocess.check_output(make, cwd=ROOT, text=True)
    command = shlex.split(recipe.rpartition("bin/python -W")[2].replace("\\\n", ""))
    command[command.index("docs/api")] = str(tmp_path)
    command = [sys.executable, "-W", *command]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Warn" not in done.stderr
    for module in pkgutil.walk_packages(mixdet.__path__, "mixdet."):
        if module.name == "mixdet.__main__":
            continue
        page = tmp_path.joinpath(*module.name.split(".")).with_suffix(".html").read_text()
        loaded = importlib.import_module(module.name)
        ours = [
            name
            for name, value in vars(loaded).items()
            if getattr(value, "__module__", None) == module.name
            and not (name.startswith("_") or isinstance(value, TypeVar))
        ]
        for name in [*ours, *getattr(loaded, "__all__", ())]:
            assert getattr(loaded, name).__doc__, f"{module.name}.{name}"
            assert f'id="{name}"' in page, f"{module.name}.{name}"


@pytest.mark.parametrize(
    ("page", "file"),
    [
        (ROOT / page, file)
        for page, files in (
            ("docs/performance.md", "benchmark/*"),
            ("README.md", "benchmark/train"),
            ("README.md", "benchmark/eval"),
            ("docs/deploy.md", "exported/*"),
        )
        for file in sorted(ROOT.glob(f"docs/results/{files}.json"))
    ],
    ids=str,
)
def test_tables_are_those_of_the_json(page, file):
    record = read_record(file)
    made, found = insert(page.read_text(), file.stem, content(record, file, page))
    linked = f"]({file.relative_to(page.parent).as_posix()})" in page.read_text()
    assert found or linked, f"{page.name} has no place for {file.name}, and does not link to it"
    assert made == page.read_text(), "run tools/benchmark.py report, as the page says"
    drawn = plot(record)
    if drawn:
        words = re.compile(r">([^<>]*\w[^<>]*)</text>")
        committed = file.with_suffix(".svg").read_text()
        assert words.findall(drawn) == words.findall(committed)
    assert "/" not in "".join(map(str, record["settings"].values()))


def test_the_summary_of_performance_repeats_the_tables():
    summary, rest = (ROOT / "docs/performance.md").read_text().split("## How it is measured")
    rows = [row.split("|") for row in summary.splitlines() if row.startswith("|")][2:]
    ratios = [ratio for row in rows for ratio in row[3].split(" to ")]
    assert len(ratios) > len(rows) > 5
    assert not [ratio for ratio in ratios if not re.search(rf"[ (]{ratio.strip()}[ )]", rest)]
