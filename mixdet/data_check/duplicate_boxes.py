"""Find objects that were annotated more than once."""

from __future__ import annotations

import numpy as np

from mixdet.data_check.data_splits import Split

SAME_IOU = 0.9  # boxes of one class with a higher IoU are taken for boxes of one object


def find_duplicate_boxes(split: Split) -> dict[int, int]:
    """Find boxes that nearly equal an earlier box of the same image and class.

    Crowds, ignored boxes, and boxes of classes that the config does not have are left out. The
    boxes of an image and class are sorted by their left edges. Each box is then compared only with
    the following boxes whose left edges are near.

    Returns:
        A dict from the index of each repeated annotation to the index of the earlier annotation,
        in the order of the file.
    """
    objects, groups = _objects(split)
    order = np.lexsort([split.boxes[objects, 0], groups])
    objects, groups = objects[order], groups[order]
    boxes = split.boxes[objects]
    # If the IoU of two boxes is above t, their left edges differ by less than (1 - t) / t of the
    # width of either box.
    limits = boxes[:, 0] + boxes[:, 2] * (1 - SAME_IOU) / SAME_IOU
    active = np.arange(len(boxes))
    pairs = [np.empty((0, 2), int)]
    for step in range(1, len(boxes)):
        active = active[active + step < len(boxes)]
        near = groups[active] == groups[active + step]
        active = active[near & (boxes[active + step, 0] <= limits[active])]
        if not len(active):
            break
        same = active[_iou(boxes[active], boxes[active + step]) > SAME_IOU]
        pairs.append(np.stack([objects[same], objects[same + step]], axis=1))
    earlier, later = np.sort(np.concatenate(pairs), axis=1).T
    later, first = np.unique(later, return_index=True)
    return dict(zip(later.tolist(), earlier[first].tolist(), strict=True))


def _objects(split: Split) -> tuple[np.ndarray, np.ndarray]:
    """Return (n,) indices of the annotations that are objects, and (n,) numbers of their groups.

    The annotations of one image and class form a group.
    """
    image, has_area = split.table.image, (split.boxes[:, 2:] > 0).all(1)
    objects = np.flatnonzero((image >= 0) & (split.labels >= 0) & ~split.crowd & has_area)
    return objects, image[objects] * len(split.classes) + split.labels[objects]


def _iou(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return the IoU of each pair of boxes (n, 4), which are (x, y, w, h)."""
    starts = np.maximum(first[:, :2], second[:, :2])
    ends = np.minimum(first[:, :2] + first[:, 2:], second[:, :2] + second[:, 2:])
    intersection = (ends - starts).clip(min=0).prod(1)
    return intersection / (first[:, 2:].prod(1) + second[:, 2:].prod(1) - intersection)
