"""`scale` measures new processes, on a made data set of any size."""

from __future__ import annotations

import json
import tempfile

import pytest
from mmdet.registry import DATASETS

from benchmarks.scale_files import large_data_set


def test_the_made_data_set_is_in_the_layout_of_coco(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    root = large_data_set(images=40, annotations=300)
    assert large_data_set(images=40, annotations=300) == root
    for split in ("train2017", "val2017"):
        dataset = DATASETS.build(
            {
                "type": "SafeCocoDataset",
                "ann_file": str(root / f"annotations/instances_{split}.json"),
                "data_prefix": {"img": str(root / split)},
                "pipeline": [{"type": "LoadImageFromFile"}],
            }
        )
        infos = [dataset[index] for index in range(len(dataset))]
        assert {info["img"].shape for info in infos} == {(480, 640, 3)}
        assert sum(len(info["instances"]) for info in infos) == 300
        assert {len(one["mask"][0]) for info in infos for one in info["instances"]} == {40}


@pytest.mark.heavy
def test_scale_measures_both_data_sets(benchmark_command, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    out = tmp_path / "scale.json"
    sizes = ("--images", 600, "--annotations", 4000)
    code, text, err = benchmark_command("scale", "--rounds", 1, *sizes, "--out", out)
    assert code == 0, err
    (row,) = json.loads(out.read_text())["rows"]
    for side in ("peer", "mixdet"):
        assert row[side]["cpu"]["median"] > 0
        assert 0 < row[side]["worker_mb"]["median"] < 500
    assert "data set" in text


def test_a_baseline_that_is_no_checkout_is_refused(refused_command, tmp_path):
    assert "no checkout" in refused_command("scale", "--baseline", tmp_path)
