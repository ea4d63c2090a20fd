"""mmdet's `MaxIoUAssigner` for all images of a batch at once."""

from __future__ import annotations

import torch
from mmdet.models.task_modules import BboxOverlaps2D, MaxIoUAssigner, PseudoSampler
from mmengine.structures import InstanceData
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence


def can_assign_batch(assigner: object, sampler: object) -> bool:
    """Tell whether `assign_batch` gives the same results as this assigner and sampler of mmdet."""
    return (
        type(assigner) is MaxIoUAssigner
        and type(assigner.iou_calculator) is BboxOverlaps2D
        # If `neg_iou_thr` has another type, mmdet assigns no negatives.
        and isinstance(assigner.neg_iou_thr, float | tuple)
        and assigner.ignore_iof_thr <= 0
        and assigner.gpu_assign_thr <= 0
        and assigner.perm_repeat_gt_cfg is None
        and type(sampler) is PseudoSampler
    )


def pad_truths(truths: list[InstanceData]) -> tuple[Tensor, Tensor]:
    """Stack the true boxes of all images, padded to the largest number of boxes in an image.

    Args:
        truths: The true boxes of each image, with `bboxes` (n, 4) and `labels` (n,).

    Returns:
        Boxes (N, M, 4) and labels (N, M). M is at least 1. The label of a padding box is -1.
    """
    boxes = pad_sequence([truth.bboxes for truth in truths], batch_first=True)
    labels = pad_sequence([truth.labels for truth in truths], batch_first=True, padding_value=-1)
    if labels.shape[1]:
        return boxes, labels
    return boxes.new_zeros(len(truths), 1, 4), labels.new_full((len(truths), 1), -1)


def assign_batch(
    assigner: MaxIoUAssigner, anchors: Tensor, boxes: Tensor, labels: Tensor
) -> Tensor:
    """Assign a true box to each anchor, with the assigner's thresholds and tie-breaks.

    Args:
        assigner: An assigner that `can_assign_batch` accepts.
        anchors: (A, 4), (x1, y1, x2, y2) in pixels.
        boxes: (N, M, 4), as `pad_truths` returns them.
        labels: (N, M), as `pad_truths` returns them.

    Returns:
        (N, A). 1 plus the index of the box in its image, 0 for the background, or -1 for an anchor
        that counts as neither.
    """
    is_box = labels >= 0
    overlaps = assigner.iou_calculator(boxes, anchors.expand(len(boxes), -1, -1))
    overlaps = overlaps.masked_fill(~is_box[..., None], -1)
    best_overlap, best_box = overlaps.max(1)
    low, high = _negative_range(assigner.neg_iou_thr)
    negative = ((best_overlap >= low) & (best_overlap < high)) | ~is_box.any(1, keepdim=True)
    assigned = negative.long() - 1
    assigned = torch.where(best_overlap >= assigner.pos_iou_thr, best_box + 1, assigned)
    if assigner.match_low_quality:
        # Every box gets its best anchor. If several anchors tie, the box gets all of them with
        # `gt_max_assign_all`, otherwise one. If boxes share a best anchor, the last box gets it.
        top_overlap, top_anchor = overlaps.max(2, keepdim=True)
        if assigner.gt_max_assign_all:
            matched = overlaps == top_overlap
        else:
            matched = torch.zeros_like(overlaps, dtype=torch.bool).scatter_(2, top_anchor, True)
        matched &= is_box[..., None] & (top_overlap >= assigner.min_pos_iou)
        box_numbers = torch.arange(1, boxes.shape[1] + 1, device=boxes.device)
        last_box = (matched * box_numbers[:, None]).amax(1)
        assigned = torch.where(last_box > 0, last_box, assigned)
    return assigned


def _negative_range(threshold: float | tuple[float, float]) -> tuple[float, float]:
    """Return the IoU range [low, high) of negative anchors."""
    return (0.0, threshold) if isinstance(threshold, float) else threshold
