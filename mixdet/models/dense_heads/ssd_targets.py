"""Training targets of an SSD head for all images of a batch at once."""

from __future__ import annotations

from typing import NamedTuple

import torch
from mmdet.models.task_modules import MaxIoUAssigner
from mmdet.models.task_modules.coders import BaseBBoxCoder
from mmdet.structures.bbox import bbox_overlaps, get_box_tensor
from mmengine.structures import InstanceData
from torch import Tensor

from mixdet.models.task_modules.batch_assign import assign_batch, pad_truths

IGNORED_IOF = 0.5  # intersection of an anchor with an ignored box, over the area of the anchor


class SSDTargets(NamedTuple):
    """The targets of N images with A anchors each.

    Attributes:
        labels: (N, A). The label of the background is the number of classes.
        label_weights: (N, A), 0 for an anchor that the loss ignores.
        boxes: (N, A, 4), encoded offsets, or (x1, y1, x2, y2) in pixels for a loss on decoded
            boxes.
        box_weights: (N, A, 4), 1 for the positive anchors and 0 for the others.
        num_positives: Number of positive anchors in the batch. An image without a positive anchor
            adds 1 to it.
    """

    labels: Tensor
    label_weights: Tensor
    boxes: Tensor
    box_weights: Tensor
    num_positives: Tensor | int


def batch_targets(
    anchors: Tensor,
    truths: list[InstanceData],
    assigner: MaxIoUAssigner,
    bbox_coder: BaseBBoxCoder | None,
    num_classes: int,
    pos_weight: float = -1,
) -> SSDTargets:
    """Compute the same targets as mmdet's `SSDHead.get_targets`, without its loop over images.

    That loop waits for the GPU several times for every image.

    Args:
        anchors: (A, 4), (x1, y1, x2, y2) in pixels, the same for all images.
        truths: One per image, with `bboxes` (n, 4) in the format of the anchors and `labels` (n,).
        assigner: An assigner that `can_assign_batch` accepts.
        bbox_coder: Encodes the box targets. None leaves them in pixels.
        num_classes: Classes without the background.
        pos_weight: Label weight of the positive anchors. A value of 0 or less means 1.

    Returns:
        The targets. The box target of an anchor without an object is the anchor itself.
    """
    boxes, labels = pad_truths(truths)
    assigned = assign_batch(assigner, anchors, boxes, labels)
    positive, box_index = assigned > 0, (assigned - 1).clamp(min=0)
    labels = labels.gather(1, box_index).masked_fill(~positive, num_classes)
    label_weights = (assigned >= 0).float()
    if pos_weight > 0:
        label_weights = label_weights.masked_fill(positive, pos_weight)
    anchors = anchors.expand(len(boxes), -1, -1)
    targets = boxes.gather(1, box_index[..., None].expand(-1, -1, 4))
    targets = targets.where(positive[..., None], anchors)
    if bbox_coder is not None:
        encoded = bbox_coder.encode(anchors.flatten(0, 1), targets.flatten(0, 1))
        targets = encoded.view_as(targets)
    box_weights = positive[..., None].expand(-1, -1, 4).float()
    return SSDTargets(
        labels, label_weights, targets, box_weights, positive.sum(1).clamp(min=1).sum()
    )


def ignore_background(
    targets: SSDTargets, anchors: Tensor, ignored: list[InstanceData | None], num_classes: int
) -> SSDTargets:
    """Give weight 0 to background anchors that lie on a box that is neither object nor background.

    An anchor lies on such a box if more than half of the anchor's area is inside the box. Anchors
    of objects keep their weights, so objects within a crowd are learned. The option
    `ignore_iof_thr` of mmdet's assigner would ignore the anchors of these objects too.

    Args:
        targets: The targets of N images.
        anchors: (A, 4), (x1, y1, x2, y2) in pixels, the same for all images.
        ignored: One per image, with `bboxes` (n, 4) in the format of the anchors, or None.
        num_classes: Classes without the background.
    """
    inside = torch.zeros_like(targets.labels, dtype=torch.bool)
    for row, instances in zip(inside, ignored, strict=True):
        if instances is not None and len(instances.bboxes):
            boxes = get_box_tensor(instances.bboxes)
            row |= (bbox_overlaps(anchors, boxes, mode="iof") > IGNORED_IOF).any(1)
    weights = targets.label_weights.masked_fill(inside & (targets.labels == num_classes), 0)
    return targets._replace(label_weights=weights)
