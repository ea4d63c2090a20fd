"""SSD's photometric distortion: what mmdet's does, in fewer passes over the pixels."""

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
BAND = 20_000  # pixels distorted at a time: as floats, and again as HSV, they stay in the cache


class PhotometricDraw(NamedTuple):
    """One distortion; the defaults change nothing.

    Attributes:
        brightness: Added to every value.
        contrast: Factor of every value, after that.
        saturation: Factor of HSV's saturation.
        hue: Added to HSV's hue, in degrees.
        order: Channel i of the output is channel order[i] of the input.
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
        brightness_delta: Largest brightness added or taken, in gray values.
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
        amounts, coins = np.random.random_sample((5, 2)).T.tolist()
        # in the order of PhotometricDraw's fields
        ranges = (
            (-self.brightness_delta, self.brightness_delta),
            self.contrast_range,
            self.saturation_range,
            (-self.hue_delta, self.hue_delta),
        )
        *amounts, place = amounts
        values = [low + (high - low) * u for (low, high), u in zip(ranges, amounts, strict=True)]
        values.append(ORDERS[int(place * len(ORDERS))])
        parts = zip(PhotometricDraw._fields, values, coins, strict=True)
        return PhotometricDraw(**{name: value for name, value, coin in parts if coin < 0.5})


def distort(
    image: np.ndarray,
    draw: PhotometricDraw,
    shown: tuple[slice, slice] = (slice(None), slice(None)),
    fill: Sequence[int] = (0, 0, 0),
) -> np.ndarray:
    """Distort an image's values; they are not clipped, as they are not in mmdet.

    Args:
        image: (H, W, 3) uint8, BGR.
        draw: What to do.
        shown: Rows and columns beyond which there is but one color.
        fill: That color, BGR.

    Returns:
        (H, W, 3) float32.
    """
    distorted = np.empty(image.shape, np.float32)
    change = (_InHsv if _needs_hsv(draw) else _InBgr)(draw)
    part, into = image[shown], distorted[shown]
    if part.shape != image.shape:
        color = np.float32([[fill]])
        change(color)
        _surround(distorted, shown, color)
    if part.size:
        rows = -(-BAND // part.shape[1])
        for first in range(0, len(part), rows):
            band = into[first : first + rows]
            band[:] = part[first : first + rows]
            change(band)
    return distorted


def _needs_hsv(draw: PhotometricDraw) -> bool:
    # mmdet passes through HSV always. Only for values below zero that is not there and back.
    return draw.saturation != 1 or draw.hue != 0 or draw.brightness < 0


class _InBgr:
    """A distortion by brightness, contrast and order alone."""

    def __init__(self, draw: PhotometricDraw) -> None:
        self.brightness = np.float32(draw.brightness)
        self.factors = np.float32(draw.contrast) * np.eye(3, dtype=np.float32)[list(draw.order)]
        self.mixes = draw.contrast != 1 or tuple(draw.order) != ORDERS[0]

    def __call__(self, pixels: np.ndarray) -> None:
        """Change (H, W, 3) float32 in place."""
        if self.brightness:
            pixels += self.brightness
        if self.mixes:
            cv2.transform(pixels, self.factors, dst=pixels)


class _InHsv:
    """Any distortion: one conversion to HSV and back.

    A cyclic order of the channels turns the hue by a third; the other three are those in reverse.
    """

    def __init__(self, draw: PhotometricDraw) -> None:
        first, second, last = draw.order
        cyclic = (second - first) % 3 == 1
        self.back = cv2.COLOR_HSV2BGR if cyclic else cv2.COLOR_HSV2RGB
        # OpenCV wraps a hue beyond 360 degrees, and none below 0
        hue = (draw.hue + 120 * (first if cyclic else last)) % 360
        self.change = np.float32(
            [[1, 0, 0, hue], [0, draw.saturation, 0, 0], [0, 0, draw.contrast, 0]]
        )
        self.brightness = np.float32(draw.brightness)
        self.saturates = draw.saturation > 1

    def __call__(self, pixels: np.ndarray) -> None:
        """Change (H, W, 3) float32 in place."""
        if self.brightness:
            pixels += self.brightness
        hsv = cv2.transform(cv2.cvtColor(pixels, cv2.COLOR_BGR2HSV), self.change)
        if self.saturates:
            rows = hsv.reshape(len(hsv), -1)  # four times faster than one channel
            np.minimum(rows, _saturation_limit(hsv.shape[1]), out=rows)
        cv2.cvtColor(hsv, self.back, dst=pixels)


@lru_cache(maxsize=64)
def _saturation_limit(width: int) -> np.ndarray:
    return np.tile(np.float32([np.inf, 1, np.inf]), width)


def _surround(image: np.ndarray, inside: tuple[slice, slice], color: np.ndarray) -> None:
    """Give an image (H, W, 3) one color, (1, 1, 3), everywhere but inside."""
    height, width = image.shape[:2]
    rows = image.reshape(height, -1)  # NumPy is slow over three values
    row = np.tile(color.ravel(), width)
    (top, bottom, _), (left, right, _) = (
        part.indices(side) for part, side in zip(inside, (height, width), strict=True)
    )
    rows[:top] = row
    rows[bottom:] = row
    rows[top:bottom, : 3 * left] = row[: 3 * left]
    rows[top:bottom, 3 * right :] = row[3 * right :]


def distort_batch(images: Tensor, draws: Sequence[PhotometricDraw]) -> Tensor:
    """As `distort`, for a batch on any device, without a loop over its images.

    Args:
        images: (N, 3, H, W), BGR, 0 to 255.
        draws: One an image.

    Returns:
        (N, 3, H, W) float32.
    """
    device = images.device
    numbers = torch.tensor([[*draw[:4], _needs_hsv(draw)] for draw in draws])
    order = torch.tensor([draw.order for draw in draws])
    if device.type == "cuda":
        numbers, order = numbers.pin_memory(), order.pin_memory()
    numbers = numbers.to(device, non_blocking=True).view(-1, 5, 1, 1)
    order = order.to(device, non_blocking=True).view(-1, 3, 1, 1)
    brightness, contrast, saturation, hue, through = numbers.unbind(1)
    pixels = images.float() + brightness[:, None]

    # as OpenCV converts, but by a formula without branches
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
    share = chroma / (value.abs() + tiny) * saturation
    share = torch.where(saturation > 1, share.clamp(max=1), share)
    value = value * contrast
    parts = []
    for first in (1, 3, 5):  # blue, green, red
        place = (first + sector).remainder(6)
        parts.append(value - value * share * torch.minimum(place, 4 - place).clamp(0, 1))
    by_hsv = torch.stack(parts, 1)
    pixels = torch.where(through[:, None] > 0, by_hsv, pixels * contrast[:, None])
    return pixels.gather(1, order.expand_as(pixels))
