"""The geometry of SSD's augmentation, planned on the boxes and the image's size alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

TRIALS = 50  # crops tried before another threshold is drawn
MAX_ASPECT = 2.0  # of a crop, either way


class CropPlan(NamedTuple):
    """What becomes of one image.

    Attributes:
        crop: (x1, y1, x2, y2) in whole pixels of the image, x2 and y2 exclusive; it may reach
            beyond the image on any side, and what lies there is to be filled.
        kept: (N,) bool, the boxes whose center is inside; all of them where nothing was cropped.
        flip: Whether the crop is mirrored, left to right.
    """

    crop: tuple[int, int, int, int]
    kept: np.ndarray
    flip: bool


@dataclass(frozen=True)
class CropPlanner:
    """Draw expansion, minimum-IoU crop and flip with the distribution of mmdet's transforms.

    mmdet's `Expand`, `MinIoURandomCrop` and `RandomFlip` say what is drawn; here the trials of one
    threshold are drawn and judged together, and a threshold that no crop can meet is passed over
    without any trial, which changes no probability. Draws from NumPy's global generator.

    Attributes:
        expand_ratio: Smallest and largest side of the canvas over the image's; None: no canvas.
        expand_prob: Share of the images that are put on a canvas.
        min_ious: Thresholds, drawn beside "no crop" and "no threshold" with equal probability.
        min_crop_size: Smallest side of a crop over the canvas's.
        flip_prob: Share of the images that are mirrored.
    """

    expand_ratio: Sequence[float] | None = (1, 4)
    expand_prob: float = 0.5
    min_ious: Sequence[float] = (0.1, 0.3, 0.5, 0.7, 0.9)
    min_crop_size: float = 0.3
    flip_prob: float = 0.5

    def __call__(self, boxes: np.ndarray, height: int, width: int) -> CropPlan:
        """Plan one image.

        Args:
            boxes: (N, 4) as (x1, y1, x2, y2), pixels of the image.
            height: The image's, in pixels.
            width: The image's, in pixels.
        """
        left = top = 0
        canvas = width, height
        if self.expand_ratio is not None and np.random.random_sample() < self.expand_prob:
            ratio = _uniform(*self.expand_ratio)
            canvas = int(width * ratio), int(height * ratio)
            left = int(_uniform(0, width * ratio - width))
            top = int(_uniform(0, height * ratio - height))
        (x1, y1, x2, y2), kept = self._crop(boxes + np.float32([left, top, left, top]), canvas)
        flip = np.random.random_sample() < self.flip_prob
        return CropPlan((x1 - left, y1 - top, x2 - left, y2 - top), kept, flip)

    def _crop(self, boxes: np.ndarray, canvas: tuple[int, int]) -> tuple[list[int], np.ndarray]:
        """A crop of the canvas, [x1, y1, x2, y2], and which of its boxes are kept."""
        modes = (None, *self.min_ious, 0)
        highest = self._highest_threshold(boxes, canvas)
        while True:
            min_iou = modes[int(_uniform(0, len(modes)))]
            if min_iou is None:
                return [0, 0, *canvas], np.ones(len(boxes), bool)
            if min_iou > highest:
                continue
            crops = self._trials(canvas)
            inside = _centers_inside(crops, boxes)
            if len(boxes):
                met = inside.any(axis=1)
                if min_iou > 0:
                    met &= _smallest_iou(crops, boxes) >= min_iou
                crops, inside = crops[met], inside[met]
            if len(crops):
                return crops[0].tolist(), inside[0]

    def _highest_threshold(self, boxes: np.ndarray, canvas: tuple[int, int]) -> float:
        """A bound on the IoU that any crop can have with every box.

        An IoU is at most the smaller area over the larger. So an IoU of t with the smallest box, of
        area a, needs a crop of at most a / t; that with the largest, of area b, one of at least
        t b; and no crop is smaller than c: t is at most a / c, and at most the root of a / b.
        """
        if not len(boxes):
            return 1.0
        sides = boxes[:, 2:] - boxes[:, :2]
        areas = (sides[:, 0] * sides[:, 1]).tolist()
        smallest, largest = min(areas), max(areas)
        smallest_crop = math.prod(int(self.min_crop_size * side) for side in canvas)
        bounds = smallest / max(smallest_crop, 1), math.sqrt(smallest / max(largest, 1e-9))
        return min(bounds) * (1 + 1e-5)  # areas are rounded

    def _trials(self, canvas: tuple[int, int]) -> np.ndarray:
        """(T, 4) crops in whole pixels, T at most `TRIALS`: those with an allowed shape."""
        draws = np.random.random_sample((2, TRIALS, 2))
        sizes = (self.min_crop_size + (1 - self.min_crop_size) * draws[0]) * canvas
        aspects = sizes[:, 1] / sizes[:, 0]
        allowed = (aspects >= 1 / MAX_ASPECT) & (aspects <= MAX_ASPECT)
        sizes = sizes[allowed]
        # From one pixel on, not from none: mmdet's `uniform(w - new_w)` draws between that and 1.
        room = canvas - sizes
        starts = room + (1 - room) * draws[1][allowed]
        crops = np.concatenate([starts, starts + sizes], axis=1).astype(np.int64)
        if min(canvas) * self.min_crop_size < 1:  # else no crop is empty
            crops = crops[(crops[:, 2:] > crops[:, :2]).all(axis=1)]
        return crops


def _uniform(low: float, high: float) -> float:
    """As np.random.uniform, which takes ten times as long for one number."""
    return low + (high - low) * np.random.random_sample()


def _smallest_iou(crops: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """(T,): the smallest IoU of each of T crops with N boxes, N > 0."""
    starts = np.maximum(crops[:, None, :2], boxes[:, :2])
    ends = np.minimum(crops[:, None, 2:], boxes[:, 2:])
    sides = np.maximum(ends - starts, 0)
    common = sides[..., 0] * sides[..., 1]
    crop_areas = np.prod(crops[:, 2:] - crops[:, :2], axis=1)
    box_areas = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
    return (common / (crop_areas[:, None] + box_areas - common)).min(axis=1)


def _centers_inside(crops: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """(T, N) bool: which of N boxes have their center within each of T crops."""
    centers = (boxes[:, :2] + boxes[:, 2:]) / 2
    return ((centers > crops[:, None, :2]) & (centers < crops[:, None, 2:])).all(axis=2)
