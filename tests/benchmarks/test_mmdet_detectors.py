"""mmdet's detectors compute losses, gradients and detections on MixNet-S."""

from __future__ import annotations

import json

import pytest
import torch

from benchmarks.mmdet_detectors import shipped_configs, table, try_detector
from tests.conftest import ROOT

RECORD = ROOT / "docs/results/mmdet/detectors.json"
FAMILIES = {
    *("atss", "cascade_rcnn", "centernet", "condinst", "deformable_detr", "detr", "dino"),
    *("faster_rcnn", "fcos", "gfl", "mask_rcnn", "paa", "retinanet", "rtmdet", "solo", "tood"),
    *("vfnet", "yolof", "yolox"),
}


def test_the_list_has_all_families_and_each_config_once():
    configs = shipped_configs()
    assert len({*configs}) == len(configs) >= 86
    assert not FAMILIES - {name.partition("/")[0] for name in configs}


@pytest.mark.parametrize(
    "name",
    [
        "faster_rcnn/faster-rcnn_r50_fpn_soft-nms_1x_coco",  # RoIAlign and Soft-NMS
        "tood/tood_r101-dconv-c3-c5_fpn_ms-2x_coco",  # deformable convolution
    ],
)
def test_detectors_with_compiled_operators_train_and_detect(name):
    row = try_detector(name)
    assert (row["training"], row["prediction"]) == ("", "")


def test_a_detector_that_fails_is_reported_with_its_error(monkeypatch):
    def no_pooling(*args, **kwargs):
        raise RuntimeError("no pooling")

    monkeypatch.setattr("torchvision.ops.roi_align", no_pooling)
    row = try_detector("faster_rcnn/faster-rcnn_r50_fpn_1x_coco")
    assert "no pooling" in row["training"]
    record = {"detectors": [row], "settings": {"left_out": {"sort": "tracking"}}}
    assert "0 of 1 detectors train and detect" in table(record)


def test_the_recorded_table_has_every_config_and_at_least_78_work():
    rows = json.loads(RECORD.read_text())["detectors"]
    assert [row["config"] for row in rows] == shipped_configs()
    assert sum(not (row["training"] or row["prediction"]) for row in rows) >= 78


@pytest.mark.heavy
@pytest.mark.parametrize("name", shipped_configs())
def test_each_detector_does_what_the_recorded_table_says(name):
    (recorded,) = (
        row for row in json.loads(RECORD.read_text())["detectors"] if row["config"] == name
    )
    torch.set_num_threads(1)
    row = try_detector(name)
    for step in ("training", "prediction"):
        assert bool(row[step]) == bool(recorded[step]), row[step]
