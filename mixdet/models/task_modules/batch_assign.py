"""mmdet's `MaxIoUAssigner` for all images of a batch at once."""

from __future__ import annotations

import torch
from mmdet.models.task_modules import BboxOverlaps2D, MaxIoUAssigner, PseudoSampler
from mmengine.structures import InstanceData
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence


def assigns_batches(assigner: object, sampler: object) -> bool:
    """Whether `assign_batch` does what this assigner and sampler of mmdet's do."""
    return (
        type(assigner) is MaxIoUAssigner
        and type(assigner.iou_calculator) is BboxOverlaps2D
        and isinstance(assigner.neg_iou_thr, float | tuple)  # of others mmdet makes no negatives
        and assigner.ignore_iof_thr <= 0
        and assigner.gpu_assign_thr <= 0
        and assigner.perm_repeat_gt_cfg is None
        and type(sampler) is PseudoSampler
    )


def pad_truths(truths: list[InstanceData]) -> tuple[Tensor, Tensor]:
    """The true boxes of a batch as two tensors.

    Args:
        truths: One an image, with `bboxes` (n, 4) and `labels` (n,).

    Returns:
        Boxes (N, M, 4) and labels (N, M), M at least 1; a label of -1 marks a box that is none.
    """
    boxes = pad_sequence([truth.bboxes for truth in truths], batch_first=True)
    labels = pad_sequence([truth.labels for truth in truths], batch_first=True, padding_value=-1)
    if labels.shape[1]:
        return boxes, labels
    return boxes.new_zeros(len(truths), 1, 4), labels.new_full((len(truths), 1), -1)


def assign_batch(assigner: MaxIoUAssigner, priors: Tensor, boxes: Tensor, labels: Tensor) -> Tensor:
    """Which true box each anchor is to find, by the assigner's thresholds and its tie-breaks.

    Args:
        assigner: One that `assigns_batches`.
        priors: Anchors (A, 4), (x1, y1, x2, y2) in pixels.
        boxes: As `pad_truths` gives them, and the labels too.
        labels: (N, M).

    Returns:
        (N, A): the index of a box of the image plus 1, 0 for the background, -1 for neither.
    """
    there = labels >= 0
    overlaps = assigner.iou_calculator(boxes, priors.expand(len(boxes), -1, -1))
    overlaps = overlaps.masked_fill(~there[..., None], -1)
    best, index = overlaps.max(1)
    low, high = _negative_range(assigner.neg_iou_thr)
    negative = ((best >= low) & (best < high)) | ~there.any(1, keepdim=True)
    assigned = negative.long() - 1
    assigned = torch.where(best >= assigner.pos_iou_thr, index + 1, assigned)
    if assigner.match_low_quality:
        # every box gets its best anchor, or anchors, the last box of several for one
        top, anchor = overlaps.max(2, keepdim=True)
        if assigner.gt_max_assign_all:
            found = overlaps == top
        else:
            found = torch.zeros_like(overlaps, dtype=torch.bool).scatter_(2, anchor, True)
        found &= there[..., None] & (top >= assigner.min_pos_iou)
        numbers = torch.arange(1, boxes.shape[1] + 1, device=boxes.device)
        last = (found * numbers[:, None]).amax(1)
        assigned = torch.where(last > 0, last, assigned)
    return assigned


def _negative_range(threshold: float | tuple[float, float]) -> tuple[float, float]:
    return (0.0, threshold) if isinstance(threshold, float) else threshold
