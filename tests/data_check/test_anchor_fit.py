"""The data check measures how well anchors fit the boxes, and suggests better sizes."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from mmdet.registry import MODELS
from mmdet.structures.bbox import bbox_overlaps

from mixdet.config.read import load_config
from mixdet.data_check.anchor_fit import (
    cluster_boxes,
    fit_anchors,
    measure_coverage,
    shape_iou,
)
from mixdet.data_check.data_splits import read_splits
from tests.tiny import write_config, write_images


def test_shape_iou_equals_mmdets_iou_of_boxes_with_the_same_center():
    rng = np.random.default_rng(0)
    boxes, anchors = rng.uniform(1, 90, (40, 2)), rng.uniform(1, 90, (7, 2))
    corners = [torch.tensor(np.hstack([-sizes / 2, sizes / 2])) for sizes in (boxes, anchors)]
    expected = bbox_overlaps(*corners).numpy()
    np.testing.assert_allclose(shape_iou(boxes, anchors), expected, rtol=1e-6)


def test_clusters_recover_known_shapes():
    rng = np.random.default_rng(0)
    shapes = np.array([[10, 10], [60, 20], [20, 60], [100, 100]])
    boxes = np.concatenate([shape * rng.uniform(0.9, 1.1, (50, 2)) for shape in shapes])
    centers = cluster_boxes(rng.permutation(boxes), 4)
    assert measure_coverage(boxes, centers).mean_iou > 0.85
    best = shape_iou(shapes.astype(float), centers).argmax(1)
    assert sorted(best) == [0, 1, 2, 3]
    np.testing.assert_allclose(centers[best], shapes, rtol=0.05)


@pytest.fixture(scope="module")
def tiny_config(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny")
    return load_config(write_config(folder, write_images(folder / "images")))


def fit(cfg):
    split = read_splits(cfg, ("train_dataloader",))[0]
    return fit_anchors(split, cfg, MODELS.build(cfg.model))


def test_the_anchors_of_the_model_are_compared_with_the_boxes(tiny_config):
    anchor_fit = fit(tiny_config)
    assert anchor_fit.input_wh == (64, 64)
    assert anchor_fit.anchors == 8  # two levels, each with two squares and two oblongs
    assert anchor_fit.boxes == 21
    assert anchor_fit.by_clusters.mean_iou > anchor_fit.now.mean_iou


def test_sizes_far_from_the_boxes_get_a_suggestion_that_fits_better(tiny_config):
    cfg = copy.deepcopy(tiny_config)
    generator = cfg.model.bbox_head.anchor_generator
    generator.update(min_sizes=[200, 300], max_sizes=[300, 400])
    anchor_fit = fit(cfg)
    assert anchor_fit.now.matched == 0
    assert anchor_fit.by_settings.matched > 0.8
    generator.update(anchor_fit.settings)  # the suggestion has the keys of the config
    assert fit(cfg).now == anchor_fit.by_settings


def test_boxes_are_measured_after_a_resize_that_keeps_the_ratio(tiny_config):
    whole, half = copy.deepcopy(tiny_config), copy.deepcopy(tiny_config)
    for cfg, scale in ((whole, (64, 64)), (half, (32, 1000))):
        cfg.train_dataloader.dataset.pipeline = [dict(type="Resize", scale=scale, keep_ratio=True)]
    # The scale (32, 1000) resizes the images from 64 x 64 to 32 x 32 pixels.
    np.testing.assert_allclose(np.array(fit(half).sides) * 2, fit(whole).sides, atol=0.02)


def test_a_model_without_anchors_gets_no_result(tiny_config):
    split = read_splits(tiny_config, ("train_dataloader",))[0]
    assert fit_anchors(split, tiny_config, torch.nn.Identity()) is None
