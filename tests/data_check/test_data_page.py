"""The HTML page of a data check names every problem and its examples."""

from __future__ import annotations

import json
from html import escape

from mixdet.config.read import load_config
from mixdet.data_check import DataReport, Example, Problem, full_check, write_data_page
from tests.tiny import write_config


def test_the_page_names_the_problems_and_their_examples(images_copy, tmp_path):
    file = images_copy / "annotations" / "instances_train2017.json"
    content = json.loads(file.read_text())
    content["annotations"][0]["category_id"] = 99
    file.write_text(json.dumps(content))
    report = full_check(load_config(write_config(tmp_path, images_copy)))
    assert isinstance(report, DataReport)
    assert not report.ok
    assert report.problems
    write_data_page(report, tmp_path / "page.html", "Tiny data")
    page = (tmp_path / "page.html").read_text()
    assert "<title>Tiny data" in page
    for problem in report.problems:
        assert isinstance(problem, Problem)
        assert all(isinstance(example, Example) for example in problem.examples)
        assert escape(problem.headline()) in page
        assert all(escape(example.text) in page for example in problem.examples)
