"""The photometric distortion of SSD, with fewer passes over the pixels than mmdet needs."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor

ORDERS = tuple(itertools.permutations(range(3)))
# Number of pixels that are distorted at a time. Two float32 copies of this many pixels, in BGR and
# in HSV, fit into the CPU's cache.
BAND_PIXELS = 20_000


class PhotometricDraw(NamedTuple):
    """The parameters of one distortion. The defaults change nothing.

    Attributes:
        brightness: Number that is added to every value.
        contrast: Factor that every value is then multiplied by.
        saturation: Factor that the saturation in HSV is multiplied by.
        hue: Degrees that are added to the hue in HSV.
        order: Channel i of the output is channel order[i] of the input.
    """

    brightness: float = 0.0
    contrast: float = 1.0
    saturation: float = 1.0
    hue: float = 0.0
    order: Sequence[int] = (0, 1, 2)


@dataclass(frozen=True)
class PhotometricDistortion:
    """Draw distortions as mmdet's `PhotoMetricDistortion` does.

    Each of the five fields of a `PhotometricDraw` is drawn with a probability of 1/2, and otherwise
    has its default. mmdet also draws whether the contrast changes before or after saturation and
    hue. This class does not, since both orders give the same pixels: a positive factor changes
    neither saturation nor hue.

    Attributes:
        brightness_delta: Largest absolute change of the brightness, in gray values.
        contrast_range: Smallest and largest factor of the contrast.
        saturation_range: Smallest and largest factor of the saturation.
        hue_delta: Largest absolute change of the hue, in degrees.
    """

    brightness_delta: float = 32
    contrast_range: Sequence[float] = (0.5, 1.5)
    saturation_range: Sequence[float] = (0.5, 1.5)
    hue_delta: float = 18

    def draw(self) -> PhotometricDraw:
        """Draw one distortion from NumPy's global generator."""
        amounts, coins = np.random.random_sample((5, 2)).T.tolist()
        # in the order of PhotometricDraw's fields
        ranges = (
            (-self.brightness_delta, self.brightness_delta),
            self.contrast_range,
            self.saturation_range,
            (-self.hue_delta, self.hue_delta),
        )
        values = [
            low + (high - low) * amount
            for (low, high), amount in zip(ranges, amounts[:-1], strict=True)
        ]
        values.append(ORDERS[int(amounts[-1] * len(ORDERS))])
        parts = zip(PhotometricDraw._fields, values, coins, strict=True)
        return PhotometricDraw(**{name: value for name, value, coin in parts if coin < 0.5})


def distort(
    image: np.ndarray,
    draw: PhotometricDraw,
    shown: tuple[slice, slice] = (slice(None), slice(None)),
    fill: Sequence[int] = (0, 0, 0),
) -> np.ndarray:
    """Distort an image. As in mmdet, the values are not clipped to 0 to 255.

    Args:
        image: (H, W, 3) uint8, BGR.
        draw: The distortion.
        shown: Rows and columns of the image to distort. All other pixels have the color `fill`.
        fill: Color of the pixels outside `shown`, BGR, before the distortion.

    Returns:
        (H, W, 3) float32.
    """
    distorted = np.empty(image.shape, np.float32)
    distortion = (_HsvDistortion if _needs_hsv(draw) else _BgrDistortion)(draw)
    part, distorted_part = image[shown], distorted[shown]
    if part.shape != image.shape:
        color = np.float32([[fill]])
        distortion.apply(color)
        _fill_outside(distorted, shown, color)
    if part.size:
        rows = -(-BAND_PIXELS // part.shape[1])
        for first in range(0, len(part), rows):
            band = distorted_part[first : first + rows]
            band[:] = part[first : first + rows]
            distortion.apply(band)
    return distorted


def _needs_hsv(draw: PhotometricDraw) -> bool:
    # mmdet always converts to HSV and back. If saturation and hue do not change, the conversion
    # changes only values below zero.
    return draw.saturation != 1 or draw.hue != 0 or draw.brightness < 0


class _BgrDistortion:
    """A distortion of brightness, contrast and channel order only, in BGR."""

    def __init__(self, draw: PhotometricDraw) -> None:
        self.brightness = np.float32(draw.brightness)
        self.matrix = np.float32(draw.contrast) * np.eye(3, dtype=np.float32)[list(draw.order)]
        self.is_identity = draw.contrast == 1 and tuple(draw.order) == ORDERS[0]

    def apply(self, pixels: np.ndarray) -> None:
        """Distort pixels (H, W, 3) float32 in place."""
        if self.brightness:
            pixels += self.brightness
        if not self.is_identity:
            cv2.transform(pixels, self.matrix, dst=pixels)


class _HsvDistortion:
    """Any distortion, by one conversion to HSV and back.

    The channels are reordered by the same conversion. A cyclic order of BGR is a shift of the hue
    by 0, 120 or 240 degrees. The other three orders are cyclic orders of RGB. For these, the pixels
    are converted back to RGB instead of BGR.
    """

    def __init__(self, draw: PhotometricDraw) -> None:
        first, second, last = draw.order
        cyclic = (second - first) % 3 == 1
        self.conversion = cv2.COLOR_HSV2BGR if cyclic else cv2.COLOR_HSV2RGB
        # OpenCV wraps a hue above 360 degrees, but not a hue below 0.
        hue = (draw.hue + 120 * (first if cyclic else last)) % 360
        self.matrix = np.float32(
            [[1, 0, 0, hue], [0, draw.saturation, 0, 0], [0, 0, draw.contrast, 0]]
        )
        self.brightness = np.float32(draw.brightness)
        self.saturates = draw.saturation > 1

    def apply(self, pixels: np.ndarray) -> None:
        """Distort pixels (H, W, 3) float32 in place."""
        if self.brightness:
            pixels += self.brightness
        hsv = cv2.transform(cv2.cvtColor(pixels, cv2.COLOR_BGR2HSV), self.matrix)
        if self.saturates:
            rows = hsv.reshape(len(hsv), -1)  # four times faster than limiting hsv[..., 1]
            np.minimum(rows, _saturation_limit(hsv.shape[1]), out=rows)
        cv2.cvtColor(hsv, self.conversion, dst=pixels)


@lru_cache(maxsize=64)
def _saturation_limit(width: int) -> np.ndarray:
    """Return upper limits for a row of HSV pixels, (3 * width,). Only the saturation is limited."""
    return np.tile(np.float32([np.inf, 1, np.inf]), width)


def _fill_outside(image: np.ndarray, inside: tuple[slice, slice], color: np.ndarray) -> None:
    """Fill an image (H, W, 3) with a color (1, 1, 3) outside the given rows and columns."""
    height, width = image.shape[:2]
    rows = image.reshape(height, -1)  # NumPy is slow on a last dimension of three
    row = np.tile(color.ravel(), width)
    (top, bottom, _), (left, right, _) = (
        part.indices(side) for part, side in zip(inside, (height, width), strict=True)
    )
    rows[:top] = row
    rows[bottom:] = row
    rows[top:bottom, : 3 * left] = row[: 3 * left]
    rows[top:bottom, 3 * right :] = row[3 * right :]


def distort_batch(images: Tensor, draws: Sequence[PhotometricDraw]) -> Tensor:
    """Distort a batch of images as `distort` does, on any device and without a loop over images.

    Args:
        images: (N, 3, H, W), BGR, 0 to 255.
        draws: The distortions, one per image.

    Returns:
        (N, 3, H, W) float32.
    """
    device = images.device
    parameters = torch.tensor([[*draw[:4], _needs_hsv(draw)] for draw in draws])
    order = torch.tensor([draw.order for draw in draws])
    if device.type == "cuda":
        parameters, order = parameters.pin_memory(), order.pin_memory()
    parameters = parameters.to(device, non_blocking=True).view(-1, 5, 1, 1)
    order = order.to(device, non_blocking=True).view(-1, 3, 1, 1)
    brightness, contrast, saturation, hue, needs_hsv = parameters.unbind(1)
    pixels = images.float() + brightness[:, None]

    # These are OpenCV's conversions to HSV and back, without branches.
    blue, green, red = pixels.unbind(1)
    value, least = pixels.amax(1), pixels.amin(1)
    chroma, tiny = value - least, torch.finfo(torch.float32).eps
    slope = 60 / (chroma + tiny)
    degrees = torch.where(
        value == red,
        (green - blue) * slope,
        torch.where(value == green, (blue - red) * slope + 120, (red - green) * slope + 240),
    )
    sector = (degrees + hue).remainder(360) / 60
    new_saturation = chroma / (value.abs() + tiny) * saturation
    new_saturation = torch.where(saturation > 1, new_saturation.clamp(max=1), new_saturation)
    value = value * contrast
    channels = []
    for offset in (1, 3, 5):  # blue, green, red
        angle = (offset + sector).remainder(6)
        channels.append(
            value - value * new_saturation * torch.minimum(angle, 4 - angle).clamp(0, 1)
        )
    from_hsv = torch.stack(channels, 1)
    pixels = torch.where(needs_hsv[:, None] > 0, from_hsv, pixels * contrast[:, None])
    return pixels.gather(1, order.expand_as(pixels))
