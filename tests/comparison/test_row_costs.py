"""The measurements of rows and the intervals over images, with fake networks and matches."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest

from mixdet.comparison import row_costs, training_runs
from mixdet.comparison.image_matches import MatchFile, match_images
from mixdet.comparison.row_costs import measure_intervals, measure_rows
from mixdet.comparison.row_summary import report_notes, summarize_rows
from mixdet.errors import MixDetError
from tests.comparison.test_joined_report import write_comparison
from tests.comparison.test_score_intervals import IMAGES, make_detections, make_truth

SCORES = {"plain": (60, 62, 61), "bad": (1, 2, 3), "mixed": (63, 64, 65)}


@pytest.fixture
def comparison(tmp_path):
    return write_comparison(tmp_path / "out", SCORES)


def test_a_row_that_cannot_be_measured_leaves_the_others(comparison, monkeypatch, capsys):
    comparison.rows = {}

    def fake_detector(row):
        def detect(image):
            if row == "bad":
                raise ZeroDivisionError("no\nway")

        return detect

    complexity = SimpleNamespace(params=1, madds=2, input_hw=(3, 4))
    for name, fake in (
        ("_checkpoint", lambda _, row: row),
        ("_export", lambda row: "no exporter"),
        ("_torch_detector", fake_detector),
        ("_latency_images", lambda _: [np.zeros((2, 2, 3), np.uint8)]),
        ("count_complexity", lambda *_: complexity),
        ("load_config", lambda *_, **__: None),
        ("training_objects", lambda _: {"cat": 5}),
    ):
        monkeypatch.setattr(row_costs, name, fake)
    with pytest.raises(MixDetError, match="bad: ZeroDivisionError: no way: the other rows are"):
        measure_rows(comparison)
    assert comparison.rows.keys() == {"plain", "mixed"}
    record = comparison.rows["mixed"]
    assert (record.params, record.onnx_of, record.train_objects) == (1, "no exporter", {"cat": 5})
    assert record.latency_of
    with training_runs._warned("something is left out"):
        raise ZeroDivisionError("no\nway")
    assert capsys.readouterr().err == (
        "warning: something is left out: ZeroDivisionError: no way\n"
    )


def test_the_interval_over_images_uses_the_seeds_that_the_baseline_has_too(comparison):
    generator = np.random.default_rng(0)
    truth = make_truth(generator)
    file = MatchFile(["1", "2", "3", "4"])
    file.runs = {
        (row, seed): match_images(truth, make_detections(truth, generator), IMAGES)
        for row in SCORES
        for seed in range(3)
    }
    file.write(comparison.folder)
    comparison.runs = [
        run for run in comparison.runs if (run.row, run.seed) not in {("plain", 2), ("bad", 0)}
    ]
    measure_intervals(comparison)
    ap = {
        key: row_costs.ImageAP(matches)(np.ones(len(IMAGES))) for key, matches in file.runs.items()
    }
    for row, seeds in (("mixed", (0, 1)), ("bad", (1,))):
        expected = np.mean([ap[row, seed] - ap["plain", seed] for seed in seeds])
        assert comparison.rows[row].images_interval[0] == pytest.approx(expected)
    assert comparison.rows["plain"].images_interval is None


def test_latencies_on_several_machines_are_listed_by_row(comparison):
    notes = "\n".join(report_notes(comparison, summarize_rows(comparison)))
    assert "in turns, on a processor." in notes
    record = comparison.rows["mixed"]
    comparison.rows["mixed"] = dataclasses.replace(record, latency_of="a GPU", onnx_of="b")
    notes = "\n".join(report_notes(comparison, summarize_rows(comparison)))
    assert "on a processor (plain, bad), a GPU (mixed)." in notes
    assert "on one thread of a (plain, bad), b (mixed)." in notes
