"""Comparisons on several data sets, joined into one report."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from mixdet.comparison import Comparison, Plan, write_joined_report
from mixdet.comparison.comparison_folder import RowRecord, RunRecord
from mixdet.comparison.image_matches import MatchFile, match_images
from mixdet.comparison.joined_report import joined_intervals
from mixdet.engine.training_length import TrainingLength
from mixdet.errors import MixDetError
from tests.comparison.test_score_intervals import IMAGES, make_detections, make_truth

SEEDS = (0, 1, 2)
# mAP in percent by data set, config and seed
SCORES = {
    "cards": {"plain": (60, 62, 61), "mixed": (63, 64, 65)},
    "birds & bees": {"plain": (30, 31, 35), "mixed": (29, 32, 35)},
    "cells": {"plain": (50, 51, 52), "mixed": (51, 52.5, 52)},
}


def write_comparison(folder, scores, small=0.1):
    plan = Plan(tuple(f"{row}.py" for row in scores), SEEDS, minutes=15)
    runs = [
        RunRecord(
            row=row,
            seed=seed,
            fingerprint="",
            metrics={
                "coco/bbox_mAP": value / 100,
                "coco/bbox_mAP_50": value / 80,
                "coco/bbox_mAP_s": small,
                "coco/bbox_mAP_m": value / 100,
                "coco/bbox_mAP_l": value / 100,
            },
            curve=[[1, 0.1]],
            losses=[[50, 3.0]],
            seconds_per_iteration=0.5,
            environment={"device": "a processor", "cores": 2, "threads": 1},
            minutes={"wall": 15.5, "cpu": 14.9},
        )
        for row, values in scores.items()
        for seed, value in zip(SEEDS, values, strict=False)
    ]
    latencies = dict(latency_ms=(1, 2, 3), latency_of="a processor", onnx_ms=(4, 5, 6), onnx_of="a")
    rows = {row: RowRecord(10, 20, (64, 64), **latencies) for row in scores}
    lengths = {row: TrainingLength(15, "epochs", 31, 7, 60, 14.8, "CPU") for row in scores}
    folder.mkdir()
    comparison = Comparison(folder, plan, runs, rows, lengths)
    comparison.write()
    return comparison


@pytest.fixture
def folders(tmp_path):
    return [
        write_comparison(tmp_path / name, scores, small=-1 if name == "cells" else 0.1).folder
        for name, scores in SCORES.items()
    ]


def test_both_intervals_equal_the_t_intervals_of_scipy():
    differences = {
        name: dict(enumerate(np.subtract(scores["mixed"], scores["plain"]).tolist()))
        for name, scores in SCORES.items()
    }
    by_set_and_seed = np.array([list(of_set.values()) for of_set in differences.values()])
    fixed, sampled = joined_intervals(differences)
    for interval, values in ((fixed, by_set_and_seed.mean(0)), (sampled, by_set_and_seed.mean(1))):
        expected = stats.ttest_1samp(values, 0).confidence_interval(0.95)
        assert interval == pytest.approx((by_set_and_seed.mean(), expected.low, expected.high))


def test_only_seeds_that_every_data_set_has_are_used():
    fixed, sampled = joined_intervals({"a": {0: 1.0, 1: 3.0, 2: 100.0}, "b": {0: 2.0, 1: 6.0}})
    assert (fixed.mean, sampled.mean) == (3, 3)
    assert joined_intervals({"a": {0: 1.0}, "b": {1: 1.0}}) == (None, None)
    assert joined_intervals({}) == (None, None)


def test_the_report_has_intervals_for_each_data_set_and_for_all_together(folders, tmp_path):
    text = write_joined_report(folders, tmp_path / "out", "python tools/compare.py --join ...")
    assert (tmp_path / "out/report.md").read_text() == text
    lines = {line.split("|")[1].strip(): line for line in text.splitlines() if line[0:1] == "|"}
    assert "60.0" not in lines["plain"]
    assert lines["plain"].split("|")[2].strip() == "61.0 ± 1.0"
    interval = stats.ttest_rel(*SCORES["cards"].values()).confidence_interval(0.95)
    words = f"+3.0 [{-interval.high:+.1f}, {-interval.low:+.1f}]"
    table = text.partition("difference to plain")[2].partition("## Costs")[0]
    cells = {
        line.split("|")[1].strip(): [cell.strip() for cell in line.split("|")[2:-1]]
        for line in table.splitlines()
        if line.startswith("| ")
    }
    assert cells["data set"] == ["mAP", "mAP50", "small", "medium", "large"]
    assert cells["cards"][0] == words
    assert cells["cells"][2] == "-"  # the data set `cells` has no small objects
    assert "birds & bees" in text
    assert "mixed: on these 3 sets together, it is" in text
    assert "Taken set by set, by 3 intervals of 95 % each, which are not corrected for" in text
    assert "For other sets, if these sets are a random sample of them, it is" in text
    assert "The result generalizes to other trainings on these sets, not to other sets." in text
    assert "15 CPU minutes" in text
    assert "31 epochs" in text
    page = (tmp_path / "out/report.html").read_text()
    assert "birds &amp; bees" in page
    assert "<svg" in page


def test_the_report_has_ap_and_ap50_of_each_class_of_a_data_set(folders, tmp_path):
    generator = np.random.default_rng(0)
    truth = make_truth(generator)
    file = MatchFile(["one", "two", "three", "four"])
    for row in ("plain", "mixed"):
        boxes = make_detections(truth, generator)
        file.runs |= {(row, seed): match_images(truth, boxes, IMAGES) for seed in SEEDS}
    file.write(folders[0])
    text = write_joined_report(folders, tmp_path / "out")
    assert text.count("AP / AP50 of each class in percent") == 1
    table = text.partition("## cards: AP / AP50 of each class")[2].partition("\n## ")[0]
    line = next(line for line in table.splitlines() if line.startswith("| three "))
    ap, ap50 = MatchFile.read(folders[0]).class_scores("mixed", SEEDS)["three"]
    assert line.split("|")[4].strip() == f"{100 * ap:.1f} / {100 * ap50:.1f}"


def test_comparisons_that_cannot_be_joined_are_refused(folders, tmp_path):
    with pytest.raises(MixDetError, match="two or more different"):
        write_joined_report([folders[0], folders[0]], tmp_path / "out")
    other = write_comparison(tmp_path / "other", {"plain": (1, 2, 3), "third": (1, 2, 3)}).folder
    with pytest.raises(MixDetError, match=r"compares plain, mixed, but .*other compares plain"):
        write_joined_report([folders[0], other], tmp_path / "out")
    for name, values in (("none", ()), ("half", (1, 2))):
        scores = {"plain": (1, 2, 3), "mixed": values}
        unfinished = write_comparison(tmp_path / name, scores).folder
        with pytest.raises(MixDetError, match="lacks finished runs of mixed: finish"):
            write_joined_report([folders[0], unfinished], tmp_path / "out")
    with pytest.raises(MixDetError, match="is a comparison, whose report would be lost"):
        write_joined_report(folders, folders[0])
