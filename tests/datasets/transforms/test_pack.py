"""PackChannelsLast returns the same samples as mmdet's PackDetInputs, but copies no image."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from mmdet.datasets.transforms import PackDetInputs
from mmdet.structures.bbox import HorizontalBoxes
from mmdet.structures.mask import BitmapMasks

from mixdet.datasets import BatchedDetDataPreprocessor, PackChannelsLast

KEYS = ("img_id", "img_shape", "flip")


def sample(ignored: tuple[int, ...] = (0, 0, 0), **more) -> dict:
    rng = np.random.default_rng(0)
    count = len(ignored)
    return {
        "img": rng.integers(0, 256, (9, 7, 3), dtype=np.uint8),
        "img_id": 3,
        "img_shape": (9, 7),
        "gt_bboxes": HorizontalBoxes(torch.from_numpy(rng.random((count, 4), np.float32))),
        "gt_bboxes_labels": np.arange(count),
        "gt_ignore_flags": np.array(ignored, bool),
    } | more


def without(*keys: str) -> dict:
    return {key: value for key, value in sample().items() if key not in keys}


def assert_same(got, expected) -> None:
    """Compare the types and values of two samples, field by field."""
    assert type(got) is type(expected)
    if hasattr(expected, "all_items"):
        assert got.metainfo == expected.metainfo
        assert set(got.keys()) == set(expected.keys())
        for key, value in expected.items():
            assert_same(got.get(key), value)
    elif isinstance(expected, HorizontalBoxes):
        assert_same(got.tensor, expected.tensor)
    elif isinstance(expected, torch.Tensor):
        assert got.dtype == expected.dtype
        assert torch.equal(got, expected)
    else:
        np.testing.assert_array_equal(got.to_ndarray(), expected.to_ndarray())


@pytest.mark.parametrize(
    "results",
    [
        sample(),
        sample(ignored=()),
        sample(ignored=(0, 1, 0)),
        sample(ignored=(1, 1)),
        sample(img=sample()["img"].astype(np.float32) / 7),
        sample(img=np.flip(sample()["img"], 1)),  # as after mmdet's RandomFlip
        sample(img=sample()["img"][..., 0]),
        sample(img=sample()["img"][2:5, 1:4]),
        sample(gt_masks=BitmapMasks(np.eye(9, 7, dtype=np.uint8)[None].repeat(3, 0), 9, 7)),
        sample(gt_seg_map=np.eye(9, 7, dtype=np.uint8)),
        sample(proposals=np.ones((2, 4), np.float32), proposals_scores=np.ones(2, np.float32)),
        without("gt_bboxes", "gt_bboxes_labels", "gt_ignore_flags"),
        without("gt_ignore_flags"),
        without("img"),
        sample(gt_bboxes=np.ones((3, 4), np.float32)),  # LoadAnnotations(box_type=None)
        sample(gt_bboxes_labels=np.arange(3)[::-1]),
        sample(gt_bboxes_labels=torch.arange(3)),
    ],
)
def test_a_packed_sample_equals_the_result_of_pack_det_inputs(results):
    got = PackChannelsLast(KEYS)(dict(results))
    expected = PackDetInputs(KEYS)(dict(results))
    assert got.keys() == expected.keys()
    for key, value in expected.items():
        assert_same(got[key], value)


def test_images_stay_channels_last_and_are_not_copied():
    results = [sample(), sample()]
    packed = [PackChannelsLast(KEYS)(dict(sample)) for sample in results]
    for before, after in zip(results, packed, strict=True):
        assert np.shares_memory(before["img"], after["inputs"].numpy())
    batch = {key: [sample[key] for sample in packed] for key in packed[0]}
    preprocess = BatchedDetDataPreprocessor(mean=[1, 2, 3], std=[4, 5, 6], bgr_to_rgb=True)
    inputs = preprocess(batch)["inputs"]
    assert inputs.is_contiguous(memory_format=torch.channels_last)
    assert not inputs.is_contiguous()
