"""NMS that stops early."""

from __future__ import annotations

from mmcv.ops import batched_nms
from torch import Tensor


def suppress(
    boxes: Tensor, scores: Tensor, labels: Tensor, cfg: dict
) -> tuple[Tensor, Tensor, Tensor]:
    """Class-aware NMS, on as many of the best candidates as `max_per_img` boxes take.

    Whether plain NMS keeps a box is up to better ones alone, and its time grows with the square of
    the candidates: the first boxes that it keeps of the best are the first of all.

    Args:
        boxes: (n, 4), (x1, y1, x2, y2).
        scores: (n,).
        labels: (n,); boxes of different labels leave each other alone.
        cfg: `nms`, as mmcv's `batched_nms` takes it, and `max_per_img`.

    Returns:
        Boxes (m, 4), scores (m,), descending, and labels (m,) of what is left.
    """
    most = cfg["max_per_img"]
    count = 4 * most if cfg["nms"].get("type", "nms") == "nms" else len(boxes)
    ranking = scores.argsort(descending=True, stable=True)
    while True:
        best = ranking[:count]
        kept, order = batched_nms(boxes[best], scores[best], labels[best], cfg["nms"])
        if len(order) >= most or count >= len(boxes):
            break
        count *= 4
    order = best[order[:most]]
    return boxes[order], kept[:most, -1], labels[order]  # soft NMS changes the scores
