"""Boxes against anchors: overlaps by hand, clusters that find what was put in, sizes that fit."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from mmdet.registry import MODELS
from mmdet.structures.bbox import bbox_overlaps

from mixdet.config.read import load_config
from mixdet.data_check.anchors import cluster, coverage, fit_anchors, shape_iou
from mixdet.data_check.splits import read_splits
from tests.tiny import write_config, write_images


def test_overlap_of_shapes_is_mmdets_of_boxes_on_one_center():
    rng = np.random.default_rng(0)
    boxes, anchors = rng.uniform(1, 90, (40, 2)), rng.uniform(1, 90, (7, 2))
    corners = [torch.tensor(np.hstack([-sizes / 2, sizes / 2])) for sizes in (boxes, anchors)]
    expected = bbox_overlaps(*corners).numpy()
    np.testing.assert_allclose(shape_iou(boxes, anchors), expected, rtol=1e-6)


def test_clusters_find_the_shapes_that_were_put_in():
    rng = np.random.default_rng(0)
    shapes = np.array([[10, 10], [60, 20], [20, 60], [100, 100]])
    boxes = np.concatenate([shape * rng.uniform(0.9, 1.1, (50, 2)) for shape in shapes])
    found = cluster(rng.permutation(boxes), 4)
    assert coverage(boxes, found).mean_iou > 0.85
    best = shape_iou(shapes.astype(float), found).argmax(1)
    assert sorted(best) == [0, 1, 2, 3]
    np.testing.assert_allclose(found[best], shapes, rtol=0.05)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny")
    return load_config(write_config(folder, write_images(folder / "images")))


def fit(cfg):
    split = read_splits(cfg, ("train_dataloader",))[0]
    return fit_anchors(split, cfg, MODELS.build(cfg.model))


def test_the_models_anchors_are_held_against_the_boxes(tiny):
    found = fit(tiny)
    assert found.input_size == (64, 64)
    assert found.anchors == 8  # two levels of two squares and two oblongs
    assert found.boxes == 21
    assert found.by_clusters.mean_iou > found.now.mean_iou


def test_sizes_far_from_the_boxes_get_a_suggestion_that_fits_better(tiny):
    cfg = copy.deepcopy(tiny)
    generator = cfg.model.bbox_head.anchor_generator
    generator.update(min_sizes=[200, 300], max_sizes=[300, 400])
    found = fit(cfg)
    assert found.now.matched == 0
    assert found.by_settings.matched > 0.8
    generator.update(found.settings)  # the suggestion is what a config can hold
    assert fit(cfg).now == found.by_settings


def test_a_resize_that_keeps_the_ratio(tiny):
    whole, half = copy.deepcopy(tiny), copy.deepcopy(tiny)
    for cfg, scale in ((whole, (64, 64)), (half, (32, 1000))):
        cfg.train_dataloader.dataset.pipeline = [dict(type="Resize", scale=scale, keep_ratio=True)]
    # the shorter side decides: 32 of 64 pixels
    np.testing.assert_allclose(np.array(fit(half).sides) * 2, fit(whole).sides, atol=0.02)


def test_a_model_without_anchors_has_nothing_to_fit(tiny):
    split = read_splits(tiny, ("train_dataloader",))[0]
    assert fit_anchors(split, tiny, torch.nn.Identity()) is None
