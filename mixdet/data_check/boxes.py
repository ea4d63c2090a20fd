"""What is wrong with the boxes themselves, and how large they are."""

from __future__ import annotations

import numpy as np

from mixdet.data_check.problems import ERROR, WARNING, Example, Problem, problem
from mixdet.data_check.splits import Split, numbers

SLACK = 1.0  # pixels: annotations are rounded
FITS, FAILS = 0.98, 0.95  # shares of boxes: another format must fit above, (x, y, w, h) fail below


def check_boxes(split: Split) -> list[Problem]:
    """Boxes that are no numbers, of another format, of no area, or not in their image."""
    boxes = split.boxes
    broken = np.isnan(boxes).any(1)
    found = _found(
        split,
        "broken_boxes",
        ERROR,
        "boxes that are not four finite numbers, which make the loss NaN or stop the reading",
        broken,
    )
    meant = guess_format(boxes, split.sizes)
    if meant:
        text = f"boxes look like {meant}, and COCO's are x y w h in pixels: convert them"
        return found + _found(split, "box_format", ERROR, text, ~broken)
    x, y, width, height = boxes.T
    images = split.sizes.T
    with np.errstate(invalid="ignore"):
        flat = (width <= 0) | (height <= 0)
        small = ~flat & ((width < 1) | (height < 1))
        beyond = _leaves(boxes, split.sizes) & ~flat
        apart = (x >= images[0]) | (y >= images[1]) | (x + width <= 0) | (y + height <= 0)
        areas = numbers([[annotation.get("area")] for annotation in split.annotations], 1)[:, 0]
        no_area = ~(areas > 0) & ~flat & ~small
    for code, text, wrong in (
        ("flat_boxes", "boxes without an area, which are left out", flat),
        ("small_boxes", "boxes less than a pixel wide or high, which are left out", small),
        ("boxes_outside", "boxes wholly outside their image, which are left out", beyond & apart),
        ("boxes_beyond", "boxes that reach out of their image", beyond & ~apart),
        ("no_area_stated", "boxes left out because their `area` is not above 0", no_area),
    ):
        found += _found(split, code, WARNING, text, wrong)
    return found


def guess_format(boxes: np.ndarray, sizes: np.ndarray) -> str | None:
    """The format that boxes have, where it is clearly another than (x, y, w, h) in pixels.

    Corners taken for a size leave the image most of the time, while a right box hardly ever has
    its size above its place; so each format is tried on all boxes.

    Args:
        boxes: (n, 4) as annotated.
        sizes: (n, 2) width and height in pixels of each box's image.

    Returns:
        Its name, or None where the boxes are as they should be, or there is no telling.
    """
    known = ~(np.isnan(boxes).any(1) | np.isnan(sizes).any(1)) & (boxes != 0).any(1)
    boxes, sizes = boxes[known], sizes[known]
    if not len(boxes):
        return None
    start, end = boxes[:, :2], boxes[:, 2:]
    if ((boxes >= 0) & (boxes <= 1)).all(1).mean() >= FITS:
        return "shares of the image (0 to 1)"
    if 1 - _leaves(boxes, sizes).mean() >= FAILS:
        return None
    corners = (end > start).all(1) & (end <= sizes + SLACK).all(1) & (start >= -SLACK).all(1)
    centerd = ~_leaves(np.hstack([start - end / 2, end]), sizes)
    if corners.mean() >= FITS:
        return "x1 y1 x2 y2"
    return "the center's x y, w h" if centerd.mean() >= FITS else None


def _leaves(boxes: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Whether boxes (n, 4) in (x, y, w, h) reach out of their images (n, 2) in (w, h)."""
    starts = boxes[:, :2]
    return (starts < -SLACK).any(1) | (starts + boxes[:, 2:] > sizes + SLACK).any(1)


def _found(split: Split, code: str, level: str, text: str, wrong: np.ndarray) -> list[Problem]:
    """A problem of those boxes for which `wrong` (n,) is true."""
    indices = np.flatnonzero(wrong)
    examples = (_example(split, index) for index in indices)
    return problem(code, level, split.name, text, len(indices), examples)


def _example(split: Split, index: int) -> Example:
    annotation = split.annotations[index]
    image = split.image_of.get(annotation.get("image_id"), {})
    box, size = split.boxes[index], split.sizes[index]
    text = f"annotation {annotation.get('id')} in {image.get('file_name')}: "
    text += f"bbox {annotation.get('bbox')}"
    if not np.isnan(size).any():
        text += f" in an image of {size[0]:g} x {size[1]:g}"
    return Example(text, split.path(image), None if np.isnan(box).any() else tuple(box.tolist()))
