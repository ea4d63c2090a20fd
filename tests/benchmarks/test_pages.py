"""The command `report` writes the tables and plots of records into pages."""

from __future__ import annotations

import json

from benchmarks import scaling
from benchmarks.pages import BEGIN, END, insert


def test_report_prints_and_inserts_the_tables(benchmark_command, refused_command, tmp_path):
    record = scaling.measure(1, {"kernel": {3: scaling.Setting(64, 2, 3)}})
    rest = next(part for part in record["parts"] if not part["madds"])
    # The row "everything else" has the time 0 if the convolutions take as long as the network.
    rest["milliseconds"] = 0.0
    file, page = tmp_path / "cost.json", tmp_path / "page.md"
    file.write_text(json.dumps(record))
    page.write_text(f"before\n{BEGIN.format(name='cost')}\nold\n{END.format(name='cost')}\nafter")
    code, out, err = benchmark_command("report", file)
    assert code == 0, err
    sweeps, layer_costs = out.strip().split("\n\n")[-2:]
    assert "kernel 3" in sweeps
    code, out, err = benchmark_command("report", file, "--page", page)
    assert (code, out) == (0, ""), err
    text = page.read_text()
    assert layer_costs in text
    assert sweeps not in text  # a page shows the sweeps only as a plot
    assert "old" not in text
    assert text.startswith("before\n<!--")
    assert text.endswith("![cost](cost.svg)\n<!-- /cost -->\nafter")
    assert file.with_suffix(".svg").read_text().startswith("<svg")
    page.write_text("no place")
    assert "cost" in benchmark_command("report", file, "--page", page)[1]
    (tmp_path / "other.json").write_text("{}")
    assert "other.json" in refused_command("report", tmp_path / "other.json")


def test_only_the_lines_between_the_marks_of_the_record_are_replaced():
    page = f"{BEGIN.format(name='train')}\nold\n{END.format(name='train')}"
    new_page = f"{BEGIN.format(name='train')}\nnew\n{END.format(name='train')}"
    assert insert(page, "train", "new") == (new_page, True)
    assert insert(page, "train_bf16", "new") == (page, False)
