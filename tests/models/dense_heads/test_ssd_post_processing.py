"""NMS of only the best candidates gives the same boxes as NMS of all candidates."""

from __future__ import annotations

import pytest
import torch
import torchvision
from mmengine.config import ConfigDict

from mixdet.models.dense_heads.ssd_post_processing import class_aware_nms


@pytest.mark.parametrize("class_agnostic", [False, True])
@pytest.mark.parametrize("steps", [None, 10], ids=["all differ", "ties"])
@pytest.mark.parametrize("places", [1, 5, 30, 1000])
def test_nms_of_the_best_candidates_equals_nms_of_all(places, steps, class_agnostic):
    """NMS finds `places` boxes at the first try, at a later try with more candidates, or never."""
    torch.manual_seed(places)
    corners = torch.rand(2000, 2) * 20  # the boxes overlap, so that NMS keeps few of them
    boxes, scores = (
        torch.cat([corners, corners + 20 + torch.rand(2000, 2) * 20], 1),
        torch.rand(2000),
    )
    if steps:
        scores = (scores * steps).round() / steps
    labels = torch.randint(3, (2000,))
    nms = dict(type="nms", iou_threshold=0.3, class_agnostic=class_agnostic)
    cfg = ConfigDict(nms=nms, max_per_img=places)
    classes = torch.zeros_like(labels) if class_agnostic else labels
    kept = torchvision.ops.batched_nms(boxes, scores, classes, 0.3)[:places]
    assert len(kept) < 400
    for values, candidates in zip(
        class_aware_nms(boxes, scores, labels, cfg), (boxes, scores, labels), strict=True
    ):
        assert torch.equal(values, candidates[kept])
