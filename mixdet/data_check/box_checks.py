"""Checks of the boxes: format, size, and position in the image."""

from __future__ import annotations

import numpy as np

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
    table, boxes = split.table, split.boxes
    problems = problem_list(
        "broken_boxes",
        ERROR,
        split.name,
        "annotations that cannot be used; training and evaluation refuse them",
        len(table.faults),
        (_fault_example(split, index, fault) for index, fault in table.faults.items()),
    )
    other_format = guess_format(boxes, split.sizes)
    if other_format:
        text = f"boxes that look like {other_format}; convert them to COCO's x y w h in pixels"
        return problems + _box_problems(split, "box_format", ERROR, text, table.is_usable)
    x, y, width, height = boxes.T
    image_width, image_height = split.sizes.T
    with np.errstate(invalid="ignore"):
        flat = table.is_flat
        small = ~flat & ((width < 1) | (height < 1))
        beyond = _extends_beyond(boxes, split.sizes) & ~flat
        outside = (x >= image_width) | (y >= image_height) | (x + width <= 0) | (y + height <= 0)
    no_area = table.lacks_area & ~small
    unstated = np.isnan(table.areas)
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
            table.ignore & ~flat,
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
            _example(split, later, f", like annotation {table.ids[earlier]}")
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


def _fault_example(split: Split, index: int, fault: str) -> Example:
    image = split.table.image[index]
    place = f"annotations[{index}].{fault}"
    return Example(f"{place}, in {_name(split, image)}", split.path(image))


def _example(split: Split, index: int, more: str = "") -> Example:
    image = split.table.image[index]
    box, size = split.boxes[index].tolist(), split.sizes[index]
    numbers = ", ".join(f"{value:g}" for value in box)
    text = f"annotation {split.table.ids[index]} in {_name(split, image)}: bbox [{numbers}]"
    if not np.isnan(size).any():
        text += f" in an image of {size[0]:g} x {size[1]:g}"
    return Example(text + more, split.path(image), tuple(box))


def _name(split: Split, image: int) -> str:
    return str(split.images.names[image]) if image >= 0 else "an unknown image"
