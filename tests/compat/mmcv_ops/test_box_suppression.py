"""Suppression of boxes equals torchvision's, a loop over boxes, or a calculation by hand."""

from __future__ import annotations

import mixdet.compat.prepared

import numpy as np
import pytest
import torch
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from mmcv.ops import batched_nms, nms_match, soft_nms
from mmcv.ops import nms as mmcv_nms


def boxes_and_scores(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(seed)
    corner = torch.rand(count, 2, generator=random) * 60
    size = torch.rand(count, 2, generator=random) * 50 + 1
    scores = torch.randperm(count, generator=random).float() / count  # no ties
    return torch.cat([corner, corner + size], 1), scores


def greedy_nms(boxes: torch.Tensor, scores: torch.Tensor, threshold: float) -> list[int]:
    """Visit boxes by descending score; keep a box if no kept box has an IoU above the threshold."""
    overlap = torchvision.ops.box_iou(boxes, boxes)
    keep: list[int] = []
    for index in scores.argsort(descending=True).tolist():
        if not keep or overlap[index, keep].max() <= threshold:
            keep.append(index)
    return keep


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 60), st.integers(0, 1000), st.sampled_from([0.1, 0.45, 0.7]))
def test_nms_keeps_the_same_boxes_as_greedy_nms(count: int, seed: int, threshold: float) -> None:
    boxes, scores = boxes_and_scores(count, seed)
    dets, keep = mmcv_nms(boxes, scores, threshold)
    assert keep.tolist() == greedy_nms(boxes, scores, threshold)
    assert torch.equal(dets, torch.cat([boxes[keep], scores[keep, None]], 1))


def test_nms_has_the_options_of_mmcv() -> None:
    boxes, scores = boxes_and_scores(50, 1)
    _, keep = mmcv_nms(boxes, scores, 0.5, score_threshold=0.4, max_num=7)
    expected = [index for index in greedy_nms(boxes, scores, 0.5) if scores[index] > 0.4]
    assert keep.tolist() == expected[:7]
    dets, _ = mmcv_nms(boxes.numpy(), scores.numpy(), 0.5)
    assert isinstance(dets, np.ndarray)


@pytest.mark.parametrize("split_threshold", [10_000, 1])
def test_batched_nms_equals_torchvision(split_threshold: int) -> None:
    boxes, scores = boxes_and_scores(200, 2)
    labels = torch.arange(200) % 5
    config = {"type": "nms", "iou_threshold": 0.5, "split_thr": split_threshold}
    dets, keep = batched_nms(boxes, scores, labels, config)
    assert keep.tolist() == torchvision.ops.batched_nms(boxes, scores, labels, 0.5).tolist()
    assert torch.equal(dets[:, 4], scores[keep])


@pytest.mark.parametrize("threshold", [0.2, 0.5])
def test_nms_with_an_offset_counts_the_last_pixel_as_part_of_a_box(threshold: float) -> None:
    boxes, scores = boxes_and_scores(60, 3)
    boxes = boxes.round()
    _, keep = mmcv_nms(boxes, scores, threshold, offset=1)
    assert keep.tolist() == greedy_nms(boxes + torch.tensor([0, 0, 1, 1]), scores, threshold)
    # The pixels 0 to 1 and 1 to 2 share one column of three. Without the offset they touch only.
    pair = torch.tensor([[0.0, 0, 1, 0], [1.0, 0, 2, 0]])
    assert len(mmcv_nms(pair, torch.tensor([0.9, 0.8]), 0.3, offset=1)[1]) == 1


def test_nms_takes_scores_of_another_precision_than_the_boxes() -> None:
    boxes, scores = boxes_and_scores(40, 5)
    _, keep = mmcv_nms(boxes, scores.bfloat16(), 0.5)
    assert keep.tolist() == greedy_nms(boxes, scores.bfloat16().float(), 0.5)


def slow_soft_nms(
    boxes: torch.Tensor, scores: torch.Tensor, threshold: float, sigma: float, low: float, how: str
) -> list[tuple[int, float]]:
    """Follow Bodla et al., algorithm 1: take the best box, then lower the scores of the others."""
    overlap = torchvision.ops.box_iou(boxes, boxes).double()
    left = dict(enumerate(scores.tolist()))
    kept = []
    while left:
        best = max(left, key=left.__getitem__)
        kept.append((best, left.pop(best)))
        for other in list(left):
            iou = float(overlap[best, other])
            if how == "gaussian":
                left[other] *= np.exp(-(iou**2) / sigma)
            elif iou >= threshold:
                left[other] *= 1 - iou if how == "linear" else 0
            if left[other] < low:
                del left[other]
    return kept


@settings(max_examples=25, deadline=None)
@given(
    st.integers(0, 40),
    st.integers(0, 1000),
    st.sampled_from(["naive", "linear", "gaussian"]),
    st.sampled_from([0.2, 0.5]),
)
def test_soft_nms_follows_the_paper(count: int, seed: int, how: str, threshold: float) -> None:
    boxes, scores = boxes_and_scores(count, seed)
    expected = slow_soft_nms(boxes, scores, threshold, 0.4, 0.05, how)
    dets, keep = soft_nms(boxes, scores, threshold, sigma=0.4, min_score=0.05, method=how)
    assert keep.tolist() == [index for index, _ in expected]
    assert torch.equal(dets[:, :4], boxes[keep])
    torch.testing.assert_close(
        dets[:, 4].double(), torch.tensor([s for _, s in expected]).double(), rtol=1e-5, atol=1e-6
    )


def test_soft_nms_equals_the_example_in_the_documentation_of_mmcv() -> None:
    boxes = np.array([[4, 3, 5, 3], [4, 3, 5, 4], *[[3, 1, 3, 1]] * 4], np.float32)
    scores = np.array([0.9, 0.9, 0.5, 0.5, 0.4, 0.0], np.float32)
    dets, keep = soft_nms(boxes, scores, 0.6, sigma=0.5)
    assert len(dets) == len(keep) == 5
    assert isinstance(dets, np.ndarray)


def test_soft_nms_with_equal_scores_keeps_the_order_of_mmcv() -> None:
    # The first box drops the second one. mmcv puts the last box in its place, so that the last box
    # comes before the third one, which has the same score.
    boxes = torch.tensor([[0.0, 0, 9, 9], [0, 0, 9, 9], [20, 0, 29, 9], [40, 0, 49, 9]])
    scores = torch.tensor([0.9, 0.8, 0.5, 0.5])
    dets, keep = soft_nms(boxes, scores, 0.3, min_score=0.1, method="naive")
    assert keep.tolist() == [0, 3, 2]
    assert torch.equal(dets[:, 4], scores[keep])


def test_soft_nms_in_batches_separates_the_classes() -> None:
    boxes = torch.tensor([[0.0, 0, 10, 10]]).repeat(4, 1)
    scores, labels = torch.tensor([0.9, 0.8, 0.7, 0.6]), torch.tensor([0, 1, 0, 1])
    config = {"type": "soft_nms", "iou_threshold": 0.5, "method": "naive", "min_score": 0.05}
    dets, keep = batched_nms(boxes, scores, labels, config)
    assert keep.tolist() == [0, 1]
    assert dets[:, 4].tolist() == pytest.approx([0.9, 0.8])


def test_nms_match_keeps_the_dropped_boxes_beside_the_box_that_dropped_them() -> None:
    boxes, scores = boxes_and_scores(80, 7)
    groups = nms_match(torch.cat([boxes, scores[:, None]], 1), 0.5)
    overlap = torchvision.ops.box_iou(boxes, boxes)
    assert [group[0].item() for group in groups] == greedy_nms(boxes, scores, 0.5)
    assert sorted(torch.cat(groups).tolist()) == list(range(80))
    for number, group in enumerate(groups):
        assert (overlap[group[0], group] >= 0.5).all()
        assert (scores[group].diff() < 0).all()
        # No better box that stays overlaps a box of the group
        for better in groups[:number]:
            assert (overlap[better[0], group] < 0.5).all()
    assert any(len(group) > 1 for group in groups)
    assert nms_match(torch.zeros(0, 5), 0.5) == []


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_nms_on_a_gpu_equals_nms_on_the_cpu() -> None:
    boxes, scores = boxes_and_scores(500, 4)
    for suppress in (mmcv_nms, soft_nms):
        _, keep = suppress(boxes, scores, 0.5)
        assert suppress(boxes.cuda(), scores.cuda(), 0.5)[1].tolist() == keep.tolist()
