"""Checks of the boxes: format, size, and position in the image."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np

from mixdet.annotations import inspect_annotations
from mixdet.data_check.data_problems import ERROR, NOTE, WARNING, Example, Problem, problem_list
from mixdet.data_check.data_splits import Split
from mixdet.data_check.duplicate_boxes import SAME_IOU, find_duplicate_boxes

# Boxes may extend this many pixels beyond their image, because annotations are rounded.
TOLERANCE = 1.0
# Another format than (x, y, w, h) is reported only if at least the fraction MIN_OTHER of the boxes
# fits this other format. Corners (x1, y1, x2, y2) and centers (center x, center y, w, h) are tried
# only if less than the fraction MIN_XYWH of the boxes, read as (x, y, w, h), is inside the images.
MIN_XYWH, MIN_OTHER = 0.95, 0.98


def check_boxes(split: Split) -> list[Problem]:
    """Report broken boxes, another format than COCO's, and boxes with a wrong size or position.

    If the boxes are in another format, their size and position are not checked.
    """
    boxes, findings = split.boxes, inspect_annotations(split.annotations)
    broken = _mask(split, findings.faults)
    problems = problem_list(
        "broken_boxes",
        ERROR,
        split.name,
        "annotations that cannot be used; training and evaluation refuse them",
        len(findings.faults),
        (_example(split, index, f": it has {fault}") for index, fault in findings.faults.items()),
    )
    other_format = guess_format(boxes, split.sizes)
    if other_format:
        text = f"boxes that look like {other_format}; convert them to COCO's x y w h in pixels"
        return problems + _box_problems(split, "box_format", ERROR, text, ~broken)
    x, y, width, height = boxes.T
    image_width, image_height = split.sizes.T
    with np.errstate(invalid="ignore"):
        flat = (width <= 0) | (height <= 0)
        small = ~flat & ((width < 1) | (height < 1))
        beyond = _extends_beyond(boxes, split.sizes) & ~flat
        outside = (x >= image_width) | (y >= image_height) | (x + width <= 0) | (y + height <= 0)
    no_area = _mask(split, findings.no_area) & ~small
    unstated = np.array([annotation.get("area") is None for annotation in split.annotations], bool)
    for code, level, text, wrong in (
        (
            "flat_boxes",
            WARNING,
            "boxes without an area; training and evaluation leave them out",
            flat,
        ),
        (
            "small_boxes",
            WARNING,
            "boxes less than a pixel wide or high; training leaves them out",
            small,
        ),
        (
            "boxes_outside",
            WARNING,
            "boxes wholly outside their image; training leaves them out",
            beyond & outside,
        ),
        ("boxes_beyond", WARNING, "boxes that extend beyond their image", beyond & ~outside),
        (
            "no_area_stated",
            WARNING,
            "boxes whose `area` is not above 0; MixDet uses width times height, but mmdet's "
            "CocoDataset leaves the boxes out: use SafeCocoDataset",
            no_area & ~unstated,
        ),
        (
            "no_area",
            NOTE if split.is_normalized else ERROR,
            "boxes without `area`; "
            + (
                "MixDet uses width times height"
                if split.is_normalized
                else "mmdet's CocoDataset cannot read them: use SafeCocoDataset"
            ),
            no_area & unstated,
        ),
        (
            "ignored_boxes",
            NOTE if split.is_normalized else WARNING,
            "boxes marked `ignore`; "
            + (
                "training takes them for neither objects nor background, and evaluation counts "
                "neither them nor the detections of them"
                if split.is_normalized
                else "mmdet's CocoDataset takes them for background: use SafeCocoDataset"
            ),
            _mask(split, findings.ignored),
        ),
    ):
        problems += _box_problems(split, code, level, text, wrong)
    duplicates = find_duplicate_boxes(split)
    return problems + problem_list(
        "duplicate_boxes",
        WARNING,
        split.name,
        f"boxes that nearly equal another box of the same image and class (IoU above {SAME_IOU}); "
        "the object counts twice in training, and once as missed in evaluation: remove one of them",
        len(duplicates),
        (
            _example(split, later, f", like annotation {split.annotations[earlier].get('id')}")
            for later, earlier in duplicates.items()
        ),
    )


def guess_format(boxes: np.ndarray, sizes: np.ndarray) -> str | None:
    """Name the format of boxes that are clearly not (x, y, w, h) in pixels.

    All boxes are tested together. Corners (x1, y1, x2, y2) that are read as (x, y, w, h) mostly
    extend beyond the image. Boxes (x, y, w, h) that are read as corners mostly have x2 < x1 or
    y2 < y1.

    Args:
        boxes: (n, 4) as annotated.
        sizes: (n, 2) width and height in pixels of the image of each box.

    Returns:
        The format, or None if the boxes are (x, y, w, h) in pixels or no format is clear.
    """
    known = ~(np.isnan(boxes).any(1) | np.isnan(sizes).any(1)) & (boxes != 0).any(1)
    boxes, sizes = boxes[known], sizes[known]
    if not len(boxes):
        return None
    first, second = boxes[:, :2], boxes[:, 2:]
    if ((boxes >= 0) & (boxes <= 1)).all(1).mean() >= MIN_OTHER:
        return "fractions of the image size (0 to 1)"
    if 1 - _extends_beyond(boxes, sizes).mean() >= MIN_XYWH:
        return None
    as_corners = (
        (second > first).all(1)
        & (second <= sizes + TOLERANCE).all(1)
        & (first >= -TOLERANCE).all(1)
    )
    as_centers = ~_extends_beyond(np.hstack([first - second / 2, second]), sizes)
    if as_corners.mean() >= MIN_OTHER:
        return "x1 y1 x2 y2"
    return "center x, center y, w, h" if as_centers.mean() >= MIN_OTHER else None


def _extends_beyond(boxes: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Return for each box (x, y, w, h) whether it extends beyond its image of `sizes` (w, h)."""
    starts = boxes[:, :2]
    ends = starts + boxes[:, 2:]
    return (starts < -TOLERANCE).any(1) | (ends > sizes + TOLERANCE).any(1)


def _box_problems(
    split: Split, code: str, level: str, text: str, wrong: np.ndarray
) -> list[Problem]:
    """Return one problem for all boxes where `wrong` (n,) is true, or an empty list."""
    indices = np.flatnonzero(wrong)
    examples = (_example(split, index) for index in indices)
    return problem_list(code, level, split.name, text, len(indices), examples)


def _mask(split: Split, indices: Collection[int]) -> np.ndarray:
    """Return (n,) bool, true for the annotations with these indices."""
    mask = np.zeros(len(split.annotations), bool)
    mask[list(indices)] = True
    return mask


def _example(split: Split, index: int, fault: str = "") -> Example:
    annotation = split.annotations[index]
    image = split.image_by_id.get(annotation.get("image_id"), {})
    box, size = split.boxes[index], split.sizes[index]
    text = f"annotation {annotation.get('id')} in {image.get('file_name')}: "
    text += f"bbox {annotation.get('bbox')}"
    if not np.isnan(size).any():
        text += f" in an image of {size[0]:g} x {size[1]:g}"
    text += fault
    return Example(text, split.path(image), None if np.isnan(box).any() else tuple(box.tolist()))
