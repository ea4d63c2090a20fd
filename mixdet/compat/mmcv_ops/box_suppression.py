"""Non-maximum suppression in mmcv's variants. Boxes are (x1, y1, x2, y2)."""

from __future__ import annotations

import numpy as np
import torch
import torchvision
from torch import Tensor

from mixdet.compat.mmcv_ops.arithmetic import at_least_float32

NAIVE, LINEAR = 0, 1  # the methods of `softnms`; the third one is Gaussian


def nms(boxes: Tensor, scores: Tensor, iou_threshold: float, offset: int = 0) -> Tensor:
    """Do non-maximum suppression with torchvision.

    Args:
        boxes: (N, 4).
        scores: (N,).
        iou_threshold: A box is dropped if its IoU with a better box is larger than this.
        offset: Pixels that are added to widths and heights: 1 if x2 and y2 belong to the box.

    Returns:
        Indices of the boxes that stay, (M,), sorted by falling score.
    """
    boxes = at_least_float32(boxes)
    if offset:
        boxes = boxes + boxes.new_tensor([0, 0, offset, offset])
    return torchvision.ops.nms(boxes, scores.to(boxes.dtype), iou_threshold)


def softnms(
    boxes: Tensor,
    scores: Tensor,
    dets: Tensor,
    iou_threshold: float,
    sigma: float,
    min_score: float,
    method: int,
    offset: int,
) -> Tensor:
    """Do Soft-NMS (Bodla et al., arXiv 1704.04503): lower the scores of overlapping boxes.

    Boxes with equal scores are taken in mmcv's order, which depends on the boxes dropped before.

    Args:
        boxes: (N, 4), on the CPU.
        scores: (N,), on the CPU.
        dets: Receives the boxes that stay and their new scores, (N, 5), sorted by falling score.
            Only the first M rows are written.
        iou_threshold: IoU from which the naive and the linear method lower a score.
        sigma: Width of the Gaussian method.
        min_score: A box whose score falls below this is dropped.
        method: 0 (naive, as in `nms`), 1 (linear) or 2 (Gaussian).
        offset: As in `nms`.

    Returns:
        Indices of the boxes that stay, (M,), sorted by falling score.
    """
    corners = at_least_float32(boxes).numpy()
    left = at_least_float32(scores).numpy().copy()
    order, count = np.arange(len(corners)), len(corners)
    done = 0
    while done < count:
        best = done + int(np.argmax(left[order[done:count]]))
        order[[done, best]] = order[[best, done]]
        rest = order[done + 1 : count]
        overlaps = _ious(corners[order[done]], corners[rest], offset)
        if method in (NAIVE, LINEAR):
            weights = 1 - overlaps if method == LINEAR else np.zeros_like(overlaps)
            weights = np.where(overlaps >= iou_threshold, weights, 1)
        else:
            weights = np.exp(-(overlaps**2) / sigma)
        left[rest] *= weights
        done += 1
        position = done
        for _ in range(len(rest)):
            if left[order[position]] < min_score:
                count -= 1
                order[position] = order[count]
            else:
                position += 1
    kept = torch.from_numpy(order[:count].copy())
    dets[:count] = torch.cat([boxes[kept], torch.from_numpy(left)[kept, None].to(boxes)], 1)
    return kept


def nms_match(dets: Tensor, iou_threshold: float) -> list[list[int]]:
    """Do non-maximum suppression, and keep the dropped boxes beside the box that dropped them.

    Args:
        dets: Boxes and scores, (N, 5), on the CPU.
        iou_threshold: A box is dropped if its IoU with a better box is at least this.

    Returns:
        One list for each box that stays, sorted by falling score: the index of the box, then the
        indices of the boxes that it dropped.
    """
    boxes = at_least_float32(dets[:, :4]).numpy()
    order = dets[:, 4].sort(descending=True).indices.numpy()
    groups = []
    while len(order):
        best, rest = order[0], order[1:]
        dropped = _ious(boxes[best], boxes[rest], 0) >= iou_threshold
        groups.append([int(best), *rest[dropped].tolist()])
        order = rest[~dropped]
    return groups


def _ious(box: np.ndarray, boxes: np.ndarray, offset: int) -> np.ndarray:
    """Return the IoU of one box (4,) with each of the boxes (N, 4). Two empty boxes have 0."""
    low, high = np.maximum(box[:2], boxes[:, :2]), np.minimum(box[2:], boxes[:, 2:])
    intersection = (high - low + offset).clip(0).prod(1)
    area = (box[2:] - box[:2] + offset).prod()
    areas = (boxes[:, 2:] - boxes[:, :2] + offset).prod(1)
    union = area + areas - intersection
    return np.divide(intersection, union, out=np.zeros_like(union), where=union != 0)


OPERATORS = (
    nms,
    nms_match,
    softnms,
)
