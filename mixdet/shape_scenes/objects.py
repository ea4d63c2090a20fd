"""Invented classes of objects. Each class has its own outlines, textures and colors.

An object has one to four parts. The outline of a part is a Fourier series in polar coordinates,
on a circle or a regular polygon. The objects of one class vary as real ones do: they are rotated,
stretched and mirrored, and their outlines and colors vary. So a network that tells the classes
apart has learned contours and textures.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass

import cv2
import numpy as np

CLASSES = tuple(f"object_{index:02d}" for index in range(48))
TEXTURES = ("flat", "stripes", "dots", "checker", "noise", "photo", "rings")
HARMONICS = 7  # of the outline
VARIATION = 0.12  # relative, of the outline and the aspect ratio of an object

# A photograph (H, W, 3) and the region (x1, y1, x2, y2) of it that may be used, in pixels
Photographs = Mapping[str, tuple[np.ndarray, tuple[int, int, int, int]]]


@dataclass(frozen=True)
class Part:
    """A part of an object. Lengths are in units of half the size of the object.

    Attributes:
        center: (x, y) relative to the center of the object.
        radius: Mean radius.
        amplitudes: Amplitudes of the outline's harmonics (7,), relative to the radius.
        phases: Their phases (7,) in radians.
        stretch: Factor of the one axis, and divisor of the other.
        angle: Direction of the stretched axis in radians.
        corners: Number of corners of a polygon, or 0 for a circle.
        texture: One of `TEXTURES`.
        frequency: Number of periods of the texture over the size of the object.
        texture_angle: Direction of the texture in radians.
        colors: Two colors (2, 3): hue, saturation and value, in 0..1.
        outlined: Whether the outline is drawn dark.
    """

    center: np.ndarray
    radius: float
    amplitudes: np.ndarray
    phases: np.ndarray
    stretch: float
    angle: float
    corners: int
    texture: str
    frequency: float
    texture_angle: float
    colors: np.ndarray
    outlined: bool


@dataclass(frozen=True)
class ObjectClass:
    """A class of objects.

    Attributes:
        parts: The parts, from back to front.
        aspect: Width divided by height.
        any_hue: Whether each object has its own hue.
        max_rotation: Largest rotation of an object in degrees.
    """

    parts: tuple[Part, ...]
    aspect: float
    any_hue: bool
    max_rotation: int


@functools.cache
def object_class(label: int) -> ObjectClass:
    """Invent a class, which depends on its label only."""
    rng = np.random.default_rng((7, label))
    hue = rng.random()
    parts = tuple(_invent_part(rng, hue, is_first=i == 0) for i in range(rng.integers(1, 5)))
    return ObjectClass(
        parts=parts,
        aspect=np.exp(rng.uniform(-0.6, 0.6)),
        any_hue=rng.random() < 0.4,
        max_rotation=rng.choice([15, 60, 180]),
    )


def _invent_part(rng: np.random.Generator, hue: float, is_first: bool) -> Part:
    decay = np.arange(1, HARMONICS + 1) ** 1.2
    amplitudes = rng.normal(0, 1, HARMONICS) / decay * rng.choice([0.05, 0.18, 0.3])
    return Part(
        amplitudes=amplitudes,
        center=np.zeros(2) if is_first else rng.uniform(-0.45, 0.45, 2),
        radius=1.0 if is_first else rng.uniform(0.25, 0.7),
        phases=rng.uniform(0, 2 * np.pi, HARMONICS),
        stretch=np.exp(rng.uniform(-0.5, 0.5)),
        angle=rng.uniform(0, np.pi),
        corners=int(rng.choice([0, 0, 3, 4, 5, 6])),
        texture=TEXTURES[rng.integers(len(TEXTURES))],
        frequency=np.exp(rng.uniform(np.log(2), np.log(9))),
        texture_angle=rng.uniform(0, np.pi),
        colors=np.array(
            [
                [hue + rng.normal(0, 0.12), rng.uniform(0.1, 0.9), rng.uniform(0.2, 0.95)]
                for _ in range(2)
            ]
        ),
        outlined=rng.random() < 0.3,
    )


def draw_object(
    image: np.ndarray,
    label: int,
    center: tuple[float, float],
    size: float,
    rng: np.random.Generator,
    photographs: Photographs,
) -> np.ndarray:
    """Draw an object of a class on an image, in place.

    Args:
        image: (H, W, 3) float32, RGB in 0..255.
        label: Label of the class.
        center: (x, y) in pixels.
        size: Diameter of the object's first part, before it is stretched, in pixels.
        rng: The random generator.
        photographs: Photographs for the texture `photo`.

    Returns:
        The mask of the object (H, W), bool.
    """
    kind = object_class(label)
    height, width = image.shape[:2]
    rotation = np.deg2rad(rng.uniform(-1, 1) * kind.max_rotation)
    mirrored = rng.random() < 0.5
    aspect = kind.aspect * np.exp(rng.normal(0, VARIATION))
    hue = rng.random() if kind.any_hue else rng.normal(0, 0.03)
    value, saturation = rng.normal(0, 0.1), rng.normal(0, 0.1)
    slope, brightness = rng.uniform(-0.5, 0.5, 2), rng.uniform(0.8, 1.2)
    mask = np.zeros((height, width), bool)
    for part in kind.parts:
        points = _outline(part, rng, rotation, aspect) * size / 2
        if mirrored:
            points[:, 0] *= -1
        points += center
        x1, y1 = np.maximum(np.floor(points.min(0)).astype(int) - 2, 0)
        x2, y2 = np.minimum(np.ceil(points.max(0)).astype(int) + 3, (width, height))
        if x2 - x1 < 2 or y2 - y1 < 2:
            continue
        corners = [np.round((points - (x1, y1)) * 16).astype(np.int32)]  # 4 bits of a pixel
        alpha = np.zeros((y2 - y1, x2 - x1), np.uint8)
        cv2.fillPoly(alpha, corners, 255, cv2.LINE_AA, 4)
        colors = [_rgb(color + (hue, saturation, value)) for color in part.colors]
        texture = _texture(part, colors, alpha.shape, size, rng, photographs, rotation)
        rows, columns = np.mgrid[y1:y2, x1:x2].astype(np.float32)
        light = brightness * (
            1 + slope[0] * (columns - center[0]) / size + slope[1] * (rows - center[1]) / size
        )
        texture = np.clip(texture * light[..., None], 0, 255)
        if part.outlined:
            line = np.zeros_like(alpha)
            cv2.polylines(line, corners, True, 255, max(1, int(size / 40)), cv2.LINE_AA, 4)
            texture = texture * (1 - (line / 255)[..., None] * 0.8)
        opacity = (alpha / 255)[..., None].astype(np.float32)
        area = image[y1:y2, x1:x2]
        area[:] = area * (1 - opacity) + texture * opacity
        mask[y1:y2, x1:x2] |= alpha > 127
    return mask


def _outline(part: Part, rng: np.random.Generator, rotation: float, aspect: float) -> np.ndarray:
    """Return the outline of a part: 72 points (x, y) in units of half the object's size."""
    angles = np.linspace(0, 2 * np.pi, 72, endpoint=False)
    radius = 1 + sum(
        amplitude * (1 + VARIATION * rng.normal()) * np.cos(harmonic * angles + phase)
        for harmonic, (amplitude, phase) in enumerate(
            zip(part.amplitudes, part.phases, strict=True), start=1
        )
    )
    if part.corners:
        step = 2 * np.pi / part.corners
        radius = radius * np.cos(step / 2) / np.cos(angles % step - step / 2)
    points = np.stack([np.cos(angles) * part.stretch, np.sin(angles) / part.stretch], 1)
    points = _rotate(points * radius[:, None] * part.radius, part.angle) + part.center
    points += [VARIATION * 0.2 * rng.normal() for _ in range(2)]
    return _rotate(points * (np.sqrt(aspect), 1 / np.sqrt(aspect)), rotation)


def _rotate(points: np.ndarray, angle: float) -> np.ndarray:
    cos, sin = np.cos(angle), np.sin(angle)
    return points @ np.array([[cos, sin], [-sin, cos]])


def _rgb(color: np.ndarray) -> np.ndarray:
    hue, saturation, value = color[0] % 1 * 360, *np.clip(color[1:], 0, 1)
    return cv2.cvtColor(np.float32([[[hue, saturation, value]]]), cv2.COLOR_HSV2RGB)[0, 0] * 255


def _texture(
    part: Part,
    colors: list[np.ndarray],
    shape: tuple[int, int],
    size: float,
    rng: np.random.Generator,
    photographs: Photographs,
    rotation: float,
) -> np.ndarray:
    """Return the texture of a part, (H, W, 3) float32 in 0..255."""
    height, width = shape
    first, second = colors
    if part.texture == "flat":
        return np.broadcast_to(first, (height, width, 3)).astype(np.float32)
    if part.texture == "photo":
        name = [*photographs][int(part.frequency * 100) % len(photographs)]
        crop = crop_photograph(*photographs[name], (0.15, 0.5), rng, (width, height))
        return crop * 0.6 + first * 0.4
    if part.texture == "noise":
        pattern = np.zeros((height, width), np.float32)
        for octave in range(3):
            cells = max(2, int(part.frequency * 2**octave))
            noise = rng.random((cells, cells), np.float32)
            noise = cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC)
            pattern += noise / 2**octave
        pattern = (pattern - pattern.mean()) * 2.2
    else:
        y, x = np.mgrid[:height, :width].astype(np.float32) / max(size, 1)
        angle = part.texture_angle + rotation
        u, v = np.cos(angle) * x + np.sin(angle) * y, -np.sin(angle) * x + np.cos(angle) * y
        period = part.frequency * 2 * np.pi
        if part.texture == "stripes":
            pattern = 2 * np.sin(u * period)
        elif part.texture == "rings":
            pattern = 2 * np.sin(np.hypot(x - x.mean(), y - y.mean()) * period)
        else:
            pattern = 4 * np.sin(u * period) * np.sin(v * period)
            pattern = pattern - 1.2 if part.texture == "dots" else 2 * pattern
    return first + (second - first) * np.clip(pattern + 0.5, 0, 1)[..., None]


def crop_photograph(
    photograph: np.ndarray,
    region: tuple[int, int, int, int],
    fractions: tuple[float, float],
    rng: np.random.Generator,
    size: tuple[int, int],
) -> np.ndarray:
    """Crop a random square of a photograph and resize it.

    Args:
        photograph: (H, W, 3) uint8.
        region: (x1, y1, x2, y2) of the photograph that may be used.
        fractions: Smallest and largest side of the square, as fractions of the region's shorter
            side.
        rng: The random generator.
        size: (width, height) of the result in pixels.

    Returns:
        (height, width, 3) float32 in 0..255.
    """
    x1, y1, x2, y2 = region
    side = max(int(min(x2 - x1, y2 - y1) * rng.uniform(*fractions)), 8)
    y, x = rng.integers(y1, y2 - side + 1), rng.integers(x1, x2 - side + 1)
    method = cv2.INTER_AREA if side > size[0] else cv2.INTER_LINEAR
    crop = photograph[y : y + side, x : x + side]
    return cv2.resize(crop, size, interpolation=method).astype(np.float32)
