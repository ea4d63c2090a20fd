"""The tool measures what it says, and refuses what it cannot."""

from __future__ import annotations

import json

from mixdet.analysis.benchmark.input import RECIPES


def test_input_pipelines(tool, coco_sample, tmp_path):
    out = tmp_path / "deep" / "input.json"
    arguments = ("--data-root", coco_sample, "--rounds", 1, "--pictures", 8, "--out", out)
    code, text, err = tool("benchmark", "input", *arguments)
    assert code == 0, err
    record = json.loads(out.read_text())
    assert record["settings"]["pictures"] == 8
    assert [row["recipe"] for row in record["recipes"]] == list(RECIPES)
    assert [row["workers"] for row in record["workers"]] == [0, 1, 2]
    assert {"torch", "mmdet", "opencv"} <= record["machine"]["versions"].keys()
    for row in record["recipes"]:
        mmdet, ours = row["mmdet"], row["mixdet"]
        (once,) = {row["speedup"][key] for key in ("low", "median", "high")}
        rate = [side["images_per_second"]["median"] for side in (ours, mmdet)]
        assert abs(once - rate[0] / rate[1]) < 1e-6 * once
        assert ("Expand" in mmdet["milliseconds"]) == (row["recipe"] == "all five steps")
        assert 0 < mmdet["decode_share"] < 1
        assert 0 < ours["decode_share"] < 1
    assert "all five steps, one core" in text


def test_a_folder_without_coco_is_refused(refusal, tmp_path):
    assert "instances_train2017.json" in refusal("benchmark", "input", "--data-root", tmp_path)
