"""The data check counts, for each class, the boxes that the model's anchors match."""

from __future__ import annotations

import copy
import json

import numpy as np
import pytest
import torch
from mmdet.models.task_modules import AnchorGenerator, SSDAnchorGenerator
from mmdet.registry import MODELS
from mmdet.structures.bbox import bbox_overlaps

from mixdet.config.read import load_config, read_config
from mixdet.data_check.anchor_fit import best_overlaps, check_anchors, fit_anchors, grid_sizes
from mixdet.data_check.data_report import anchor_lines
from mixdet.data_check.data_splits import read_splits
from mixdet.models.task_modules import TFSSDAnchorGenerator
from tests.conftest import ROOT
from tests.tiny import write_config


@pytest.mark.parametrize(
    ("generator", "cells"),
    [
        (
            SSDAnchorGenerator(
                strides=[8, 16], ratios=[[2, 3], [2]], min_sizes=[14, 28], max_sizes=[28, 48],
                input_size=64, scale_major=False,
            ),
            [(8, 6), (4, 3)],
        ),
        (
            AnchorGenerator(
                strides=[(8, 12), (21, 17)], ratios=[0.5, 1, 2], octave_base_scale=4,
                scales_per_octave=3,
            ),
            [(8, 4), (3, 3)],
        ),
        (TFSSDAnchorGenerator(strides=[16, 32], input_size=64), [(4, 4), (2, 2)]),
    ],
    ids=["ssd", "retina", "tensorflow"],
)  # fmt: skip
def test_the_best_overlap_equals_the_largest_iou_with_all_anchors_of_the_grids(generator, cells):
    rng = np.random.default_rng(0)
    corners = np.sort(rng.uniform(0, 64, (500, 2, 2)), axis=1).reshape(500, 4)
    anchors = generator.grid_priors([(high, wide) for wide, high in cells], device="cpu")
    expected = bbox_overlaps(torch.tensor(corners), torch.cat(anchors).double()).max(1).values
    np.testing.assert_allclose(best_overlaps(corners, generator, cells), expected, rtol=1e-5)


@pytest.fixture
def fit(images_copy, tmp_path):
    """A function that writes {class: [(x, y, w, h)]} as training boxes, and fits the anchors.

    Images are 64 x 64. The tiny model's anchors of stride 8 have the centers 4, 12, 20, ... Their
    squares have sides of 14 and 19.8 pixels. The anchors of stride 16 have the centers 8, 24,
    40, ... Their squares have sides of 28 and 36.7 pixels.
    """

    def run(boxes, change=lambda cfg: None):
        file = images_copy / "annotations" / "instances_train2017.json"
        content = json.loads(file.read_text())
        content["annotations"] = [
            {"id": index, "image_id": 1, "category_id": category, "bbox": box, "area": 1}
            for index, (category, box) in enumerate(
                ((category, box) for category in boxes for box in boxes[category]), start=1
            )
        ]
        file.write_text(json.dumps(content))
        cfg = load_config(write_config(tmp_path, images_copy))
        change(cfg)
        split = read_splits(cfg, ("train_dataloader",))[0]
        return fit_anchors(split, cfg, MODELS.build(cfg.model))

    return run


def test_the_share_of_matched_boxes_equals_a_computation_by_hand(fit):
    """Two of the four boxes of the class `dark` have an IoU of 0.5 or more with an anchor.

    The nearest anchor is always a square with a side of 14:

    - Side 14, center (27, 27), 1 pixel off (28, 28): 13 * 13 / (2 * 14 * 14 - 13 * 13) = 0.76.
    - Side 10, on the center of the anchor: 100 / 196 = 0.51.
    - Side 8, on the center of the anchor: 64 / 196 = 0.33.
    - Side 10, 4 pixels off in both directions: 8 * 8 / (196 + 100 - 64) = 0.28.
    """
    result = fit(
        {
            1: [[20, 20, 14, 14], [23, 23, 10, 10], [24, 24, 8, 8], [27, 27, 10, 10]],
            2: [[24, 24, 8, 8]],
        }
    )
    dark, bright = result.classes
    assert (dark.name, dark.boxes, dark.matched) == ("dark", 4, 0.5)
    assert (bright.name, bright.boxes, bright.matched, bright.side) == ("bright", 1, 0, 8)
    assert result.matched == pytest.approx(2 / 5)
    assert result.iou == 0.5
    assert result.input_wh == (64, 64)


def test_a_good_mean_hides_no_class_that_the_anchors_miss(fit):
    """93 % of all boxes are matched, but only 4 % of the boxes of the class `bright`."""
    large = [[20, 20, 14, 14]] * 357
    small = [[23, 23, 10, 10]] + [[25, 25, 6, 6]] * 24
    result = fit({1: large, 2: small})
    assert result.matched == pytest.approx(0.937, abs=1e-3)
    (problem,) = check_anchors(result)
    assert (problem.level, problem.count) == ("note", 1)
    assert problem.examples[0].text == "bright: 4 % of 25 boxes, median side 6 pixels"
    for words in ("from its single best anchor", "a larger input size", "docs/"):
        assert words in problem.text
    lines = "\n".join(anchor_lines(result))
    assert "bright     25            6    4.0 %" in lines
    assert "min_sizes" not in lines + problem.text


def test_classes_that_the_anchors_match_get_no_note(fit):
    assert check_anchors(fit({1: [[20, 20, 14, 14]], 2: [[16, 16, 28, 28]]})) == []


def test_a_match_needs_the_iou_threshold_of_the_assigner(fit):
    def strict(cfg):
        cfg.model.train_cfg.assigner.update(pos_iou_thr=0.8, match_low_quality=False)

    result = fit({1: [[20, 20, 14, 14]]}, strict)  # an IoU of 0.76
    assert (result.iou, result.matched) == (0.8, 0)
    (problem,) = check_anchors(result)
    assert "single best anchor" not in problem.text


def test_boxes_are_resized_as_in_training(fit):
    def resize(scale, keep_ratio):
        step = dict(type="Resize", scale=scale, keep_ratio=keep_ratio)
        return lambda cfg: cfg.train_dataloader.dataset.update(pipeline=[step])

    boxes = {1: [[10, 20, 6, 12]]}
    double = fit(boxes, resize((128, 64), False))
    assert (double.input_wh, double.sides[2], double.ratios[2]) == ((128, 64), 12, 1)
    # 64 x 64 images fit into (200, 32) with a side of 32
    half = fit(boxes, resize((200, 32), True))
    assert half.sides[2] == pytest.approx(np.sqrt(3 * 6), abs=0.01)


def test_a_wide_input_has_anchors_over_its_whole_width(fit):
    """A box at the right edge is matched. A box that is cut at the lower edge is not matched."""

    def wide(cfg):
        step = dict(type="Resize", scale=(128, 64), keep_ratio=False)
        cfg.train_dataloader.dataset.pipeline = [step]

    result = fit({1: [[57, 20, 7, 14]], 2: [[20, 60, 7, 14]]}, wide)
    assert [part.matched for part in result.classes] == [1, 0]


def test_the_base_for_own_data_matches_small_boxes_and_that_for_coco_does_not():
    corners = np.random.default_rng(0).uniform(20, 280, (500, 2))
    boxes = np.hstack([corners, corners + 20])
    shares = []
    for name, cells in (
        ("ssdlite_mixnet_s_coco", [20, 10, 5, 3, 2, 1]),
        ("_base_/own_data", [40, 20, 10, 5, 3]),
    ):
        model = MODELS.build(read_config(ROOT / f"configs/{name}.py").model)
        sizes = grid_sizes(model, (320, 320), keep_ratio=False)
        assert sizes == [(side, side) for side in cells]
        overlaps = best_overlaps(boxes, model.bbox_head.prior_generator, sizes)
        shares.append((overlaps >= 0.5).mean())
    assert shares[0] < 0.05
    assert shares[1] > 0.6


def with_other_assigner(cfg):
    cfg.model.train_cfg.assigner = dict(type="ATSSAssigner", topk=9)


def with_border(cfg):
    cfg.model.train_cfg.allowed_border = 0


def without_resize(cfg):
    for loader in (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader):
        loader.dataset.pipeline = []


def without_anchors(cfg):
    cfg.model = copy.deepcopy(cfg.model)
    cfg.model.bbox_head = dict(
        type="FCOSHead", num_classes=2, in_channels=8, feat_channels=8, norm_cfg=None
    )
    cfg.model.update(train_cfg=None)


@pytest.mark.parametrize(
    "change", [with_other_assigner, with_border, without_resize, without_anchors]
)
def test_anchors_are_compared_only_if_an_iou_threshold_decides_at_a_known_size(fit, change):
    assert fit({1: [[20, 20, 14, 14]]}, change) is None
    assert check_anchors(None) == []
