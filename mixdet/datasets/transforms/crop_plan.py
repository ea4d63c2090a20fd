"""Plan the geometry of SSD's augmentation from the boxes and the size of an image."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

TRIALS = 50  # crops that are tried before another threshold is drawn
MAX_ASPECT = 2.0  # largest ratio of the longer to the shorter side of a crop


class CropPlan(NamedTuple):
    """The geometry of the augmentation of one image.

    Attributes:
        crop: (x1, y1, x2, y2) in whole pixels of the image, x2 and y2 exclusive. It may extend
            beyond the image on any side. The area outside the image has to be filled.
        kept: (N,) bool, True for a box whose center is inside the crop. If "no crop" was drawn, all
            boxes are kept.
        flip: Whether the crop is mirrored from left to right.
    """

    crop: tuple[int, int, int, int]
    kept: np.ndarray
    flip: bool


@dataclass(frozen=True)
class CropPlanner:
    """Draw expansion, minimum-IoU crop and flip from NumPy's global generator.

    The plans have the same distribution as with mmdet's `Expand`, `MinIoURandomCrop` and
    `RandomFlip`. The crop is cut from the canvas, which is the image after the expansion. For each
    drawn threshold, `TRIALS` crops are drawn and checked at once. A threshold that no crop can
    reach is skipped without a trial. This does not change the distribution.

    Attributes:
        expand_ratio: Smallest and largest ratio of the canvas's side to the image's side. None
            turns the expansion off.
        expand_prob: Probability of an expansion.
        min_ious: Thresholds for the smallest IoU of the crop with a box. Every threshold, "no
            crop" and "no threshold" are drawn with the same probability.
        min_crop_size: Smallest ratio of the crop's side to the canvas's side.
        flip_prob: Probability of a flip.
    """

    expand_ratio: Sequence[float] | None = (1, 4)
    expand_prob: float = 0.5
    min_ious: Sequence[float] = (0.1, 0.3, 0.5, 0.7, 0.9)
    min_crop_size: float = 0.3
    flip_prob: float = 0.5

    def __call__(self, boxes: np.ndarray, height: int, width: int) -> CropPlan:
        """Draw the plan for one image.

        Args:
            boxes: (N, 4), (x1, y1, x2, y2) in pixels of the image.
            height: Height of the image in pixels.
            width: Width of the image in pixels.
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
        """Draw a crop of the canvas. Return [x1, y1, x2, y2], and which boxes are kept, (N,)."""
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
                accepted = inside.any(axis=1)
                if min_iou > 0:
                    accepted &= _smallest_iou(crops, boxes) >= min_iou
                crops, inside = crops[accepted], inside[accepted]
            if len(crops):
                return crops[0].tolist(), inside[0]

    def _highest_threshold(self, boxes: np.ndarray, canvas: tuple[int, int]) -> float:
        """Return an upper bound for the smallest IoU of a crop with a box.

        An IoU is at most the ratio of the smaller to the larger area. Let the smallest box have the
        area a, the largest box the area b, and the smallest crop the area c. Suppose that a crop
        has an IoU of at least t with every box. Because of the smallest box, the crop's area is at
        most a / t. Because of the largest box, the crop's area is at least t * b. The crop's area
        is also at least c. Therefore t is at most sqrt(a / b), and at most a / c.
        """
        if not len(boxes):
            return 1.0
        sides = boxes[:, 2:] - boxes[:, :2]
        areas = (sides[:, 0] * sides[:, 1]).tolist()
        smallest, largest = min(areas), max(areas)
        smallest_crop = math.prod(int(self.min_crop_size * side) for side in canvas)
        bounds = smallest / max(smallest_crop, 1), math.sqrt(smallest / max(largest, 1e-9))
        return min(bounds) * (1 + 1e-5)  # the areas have rounding errors

    def _trials(self, canvas: tuple[int, int]) -> np.ndarray:
        """Draw `TRIALS` crops. Return the T crops with an allowed aspect ratio: (T, 4), pixels."""
        draws = np.random.random_sample((2, TRIALS, 2))
        sizes = (self.min_crop_size + (1 - self.min_crop_size) * draws[0]) * canvas
        aspects = sizes[:, 1] / sizes[:, 0]
        allowed = (aspects >= 1 / MAX_ASPECT) & (aspects <= MAX_ASPECT)
        sizes = sizes[allowed]
        # mmdet's `uniform(w - new_w)` draws between w - new_w and 1, not between 0 and w - new_w.
        # The starts are drawn in the same way here.
        room = canvas - sizes
        starts = room + (1 - room) * draws[1][allowed]
        crops = np.concatenate([starts, starts + sizes], axis=1).astype(np.int64)
        if min(canvas) * self.min_crop_size < 1:  # only then a crop can be empty
            crops = crops[(crops[:, 2:] > crops[:, :2]).all(axis=1)]
        return crops


def _uniform(low: float, high: float) -> float:
    """Draw the number that `np.random.uniform` would draw, in a tenth of the time."""
    return low + (high - low) * np.random.random_sample()


def _smallest_iou(crops: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Return, for each of T crops, the smallest of its IoUs with N > 0 boxes, (T,)."""
    starts = np.maximum(crops[:, None, :2], boxes[:, :2])
    ends = np.minimum(crops[:, None, 2:], boxes[:, 2:])
    sides = np.maximum(ends - starts, 0)
    intersections = sides[..., 0] * sides[..., 1]
    crop_areas = np.prod(crops[:, 2:] - crops[:, :2], axis=1)
    box_areas = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
    unions = crop_areas[:, None] + box_areas - intersections
    return (intersections / unions).min(axis=1)


def _centers_inside(crops: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Tell which of N boxes have their center inside each of T crops, (T, N) bool."""
    centers = (boxes[:, :2] + boxes[:, 2:]) / 2
    return ((centers > crops[:, None, :2]) & (centers < crops[:, None, 2:])).all(axis=2)
