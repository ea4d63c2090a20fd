"""Post-processing of an SSD head: select candidates in all levels, then apply NMS per image."""

from __future__ import annotations

from typing import NamedTuple

from mmcv.ops import batched_nms
from mmengine.structures import InstanceData
from torch import Tensor


class Candidates(NamedTuple):
    """The k best pairs of an anchor and a class, for each of N images.

    Attributes:
        scores: (N, k). -1 stands for a score that is not above the threshold.
        labels: (N, k), counted from 0.
        deltas: (N, k, 4), encoded box offsets.
        anchors: (N, k, 4), (x1, y1, x2, y2) in pixels.
    """

    scores: Tensor
    labels: Tensor
    deltas: Tensor
    anchors: Tensor


def select_candidates(scores: Tensor, deltas: Tensor, anchors: Tensor, cfg: dict) -> Candidates:
    """Select the best pairs of an anchor and a class of one level.

    Args:
        scores: (N, A, classes), without the background.
        deltas: (N, A, 4).
        anchors: (A, 4).
        cfg: The head's `test_cfg`. `score_thr` is the threshold, 0 by default. `nms_pre` is the
            largest number of pairs to keep per image. By default there is no limit.

    Returns:
        The candidates, by descending score. k is the largest number of candidates that an image of
        the batch has.
    """
    num_classes = scores.shape[-1]
    scores = scores.flatten(1)
    threshold = cfg.get("score_thr", 0)
    k = scores.shape[1]
    if cfg.get("nms_pre", -1) > 0:
        k = min(k, cfg["nms_pre"])
    # Usually few pairs are above the threshold, so that k can be small.
    k = min(k, int((scores > threshold).sum(1).max()))
    scores, pairs = scores.topk(k)
    scores = scores.masked_fill(scores <= threshold, -1.0)
    rows, labels = pairs // num_classes, pairs % num_classes
    deltas = deltas.gather(1, rows[..., None].expand(-1, -1, 4))
    return Candidates(scores, labels, deltas, anchors[rows])


def filter_detections(
    boxes: Tensor,
    scores: Tensor,
    labels: Tensor,
    meta: dict,
    cfg: dict,
    rescale: bool = False,
    with_nms: bool = True,
) -> InstanceData:
    """Clip, rescale and filter the candidates of one image, and suppress duplicates.

    Args:
        boxes: (k, 4), (x1, y1, x2, y2) in pixels of the input.
        scores: (k,). Candidates with a negative score are dropped.
        labels: (k,).
        meta: `img_shape`, (height, width) of the input, and `scale_factor`, (x, y), if `rescale`.
        cfg: The head's `test_cfg`: `min_bbox_size`, and for NMS `nms` and `max_per_img`.
        rescale: Return boxes in pixels of the original image.
        with_nms: False leaves duplicates in place.

    Returns:
        `bboxes` (n, 4), `scores` (n,) and `labels` (n,).
    """
    height, width = meta["img_shape"][:2]
    boxes = boxes.clamp(min=0).minimum(boxes.new_tensor([width, height] * 2))
    if rescale:
        boxes = boxes / boxes.new_tensor(meta["scale_factor"]).repeat(2)
    keep = scores >= 0
    if cfg.get("min_bbox_size", -1) >= 0:
        keep &= ((boxes[:, 2:] - boxes[:, :2]) > cfg["min_bbox_size"]).all(1)
    boxes, scores, labels = boxes[keep], scores[keep], labels[keep]
    if with_nms and len(boxes):
        boxes, scores, labels = class_aware_nms(boxes, scores, labels, cfg)
    return InstanceData(bboxes=boxes, scores=scores, labels=labels)


def class_aware_nms(
    boxes: Tensor, scores: Tensor, labels: Tensor, cfg: dict
) -> tuple[Tensor, Tensor, Tensor]:
    """Suppress duplicates among boxes of the same label, and keep at most `max_per_img` boxes.

    The time of NMS grows with the square of the number of candidates. In ordinary NMS (`type` is
    'nms'), only boxes with a higher score can suppress a box. NMS of only the best candidates
    therefore keeps the same first boxes as NMS of all candidates. So this function tries NMS with
    few candidates first, and with four times as many in each further try, until `max_per_img` boxes
    are kept.

    Args:
        boxes: (n, 4), (x1, y1, x2, y2).
        scores: (n,).
        labels: (n,).
        cfg: `nms`, as mmcv's `batched_nms` takes it, and `max_per_img`.

    Returns:
        Boxes (m, 4), scores (m,), descending, and labels (m,), with m at most `max_per_img`.
    """
    limit = cfg["max_per_img"]
    count = 4 * limit if cfg["nms"].get("type", "nms") == "nms" else len(boxes)
    ranking = scores.argsort(descending=True, stable=True)
    while True:
        best = ranking[:count]
        detections, keep = batched_nms(boxes[best], scores[best], labels[best], cfg["nms"])
        if len(keep) >= limit or count >= len(boxes):
            break
        count *= 4
    keep = best[keep[:limit]]
    # The scores come from `detections`, since soft NMS changes them
    return boxes[keep], detections[:limit, -1], labels[keep]
