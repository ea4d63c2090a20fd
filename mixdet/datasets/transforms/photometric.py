"""SSD's photometric distortion: what mmdet's does, in fewer passes over the pixels."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np

ORDERS = tuple(itertools.permutations(range(3)))


class PhotometricDraw(NamedTuple):
    """One distortion; the defaults change nothing.

    Attributes:
        brightness: Added to every value.
        contrast: Factor of every value, after that.
        saturation: Factor of HSV's saturation.
        hue: Added to HSV's hue, in degrees.
        order: Which of the channels stands where.
    """

    brightness: float = 0.0
    contrast: float = 1.0
    saturation: float = 1.0
    hue: float = 0.0
    order: Sequence[int] = (0, 1, 2)


@dataclass(frozen=True)
class PhotometricDistortion:
    """Draw as mmdet's `PhotoMetricDistortion` does, each of five parts with probability 1/2.

    mmdet draws whether contrast comes before or after saturation and hue. A positive factor changes
    neither of the two, so both orders give the same pixels, and nothing is drawn for it.

    Attributes:
        brightness_delta: Largest brightness added or taken, in grey values.
        contrast_range: Smallest and largest contrast.
        saturation_range: Smallest and largest saturation.
        hue_delta: Largest hue added or taken, in degrees.
    """

    brightness_delta: float = 32
    contrast_range: Sequence[float] = (0.5, 1.5)
    saturation_range: Sequence[float] = (0.5, 1.5)
    hue_delta: float = 18

    def draw(self) -> PhotometricDraw:
        """Draw from NumPy's global generator."""
        draws = np.random.random_sample((5, 2)).tolist()
        # in the order of PhotometricDraw's fields
        ranges = (
            (-self.brightness_delta, self.brightness_delta),
            self.contrast_range,
            self.saturation_range,
            (-self.hue_delta, self.hue_delta),
        )
        values = [
            low + (high - low) * u for (low, high), (u, _) in zip(ranges, draws, strict=False)
        ]
        values.append(ORDERS[int(draws[-1][0] * len(ORDERS))])
        parts = zip(PhotometricDraw._fields, values, draws, strict=True)
        return PhotometricDraw(**{name: value for name, value, (_, u) in parts if u < 0.5})


def distort(picture: np.ndarray, draw: PhotometricDraw) -> np.ndarray:
    """Distort a picture's values; they are not clipped, as they are not in mmdet.

    Args:
        picture: (H, W, 3) uint8, BGR.
        draw: What to do.

    Returns:
        (H, W, 3) float32, as `by_channel` lays it out.
    """
    pixels = picture.astype(np.float32)
    if draw.brightness:
        pixels += np.float32(draw.brightness)
    # mmdet passes through HSV always. Only for values below zero that is not there and back.
    if draw.saturation != 1 or draw.hue or draw.brightness < 0:
        hsv = cv2.cvtColor(pixels, cv2.COLOR_BGR2HSV)
        # OpenCV wraps a hue beyond 360 degrees, and none below 0
        change = [[1, 0, 0, draw.hue % 360], [0, draw.saturation, 0, 0], [0, 0, draw.contrast, 0]]
        hsv = cv2.transform(hsv, np.float32(change))
        if draw.saturation > 1:
            limit = np.tile(np.float32([np.inf, 1, np.inf]), picture.shape[1])
            rows = hsv.reshape(len(hsv), -1)
            np.minimum(rows, limit, out=rows)  # in rows: four times faster than one channel
        pixels = cv2.cvtColor(hsv, cv2.COLOR_HSV2BGR, dst=pixels)
    elif draw.contrast != 1:
        pixels *= np.float32(draw.contrast)
    return by_channel(pixels, draw.order)


def by_channel(picture: np.ndarray, order: Sequence[int] = (0, 1, 2)) -> np.ndarray:
    """Lay a picture out channel by channel, as a tensor (3, H, W) needs it: mmdet copies no more.

    Args:
        picture: (H, W, 3).
        order: Which of the channels stands where.

    Returns:
        (H, W, 3), of the same type.
    """
    planes = np.empty((3, *picture.shape[:2]), picture.dtype)
    pairs = [index for to, source in enumerate(order) for index in (source, to)]
    cv2.mixChannels([picture], list(planes), pairs)
    return planes.transpose(1, 2, 0)
