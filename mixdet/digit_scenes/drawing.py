"""Draw a digit scene: handwritten digits on a crop of a photograph, with their boxes.

The wheels of scikit-learn and scikit-image contain the digits and the photographs, so nothing is
downloaded. The training and the validation scenes share no digit and no pixel of a photograph:

- The last fifth of the digits of each class is for validation. The digits are in the order of
  their collection, so most validation digits are by people who wrote no training digit.
- The right 30 % of each photograph is for validation, and the rest for training.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import cv2
import numpy as np

CLASSES = tuple("0123456789")
SPLITS = ("train", "val")

SIZE = 160  # Width and height of an image in pixels.
HEIGHT_RANGE = (18.0, 125.0)  # Height of an upright digit in pixels, log-uniform.
MAX_DIGITS = 5
EMPTY_FRACTION = 0.05  # Fraction of the images without a digit.
INK_THRESHOLD = 0.5  # A pixel of a mask above this value is ink. The box encloses all ink.
MAX_OVERLAP = 0.1  # Intersection of two boxes, divided by the smaller area. Ink never overlaps.
# Smallest allowed result of `contrast`, a distance in CIELAB. A distance of 2 is just noticeable.
# The distance from black to white is 100.
MIN_CONTRAST = 25.0

# Photographs by name, with the id of their license in `files.LICENSES`. The other images of the two
# packages are not used, because they contain text (page, text, logo, astronaut, coins, motorcycle)
# or are nearly blank (moon, cell, clock).
PHOTOGRAPHS = {
    "china": 2,  # by danielbuechele, from scikit-learn
    "flower": 2,  # by vultilion, from scikit-learn
    "brick": 1,
    "camera": 1,
    "chelsea": 1,
    "coffee": 1,
    "grass": 1,
    "gravel": 1,
    "hubble_deep_field": 3,
    "immunohistochemistry": 3,
    "retina": 1,
    "rocket": 3,
}


class Digit(NamedTuple):
    """A digit with its mask.

    Attributes:
        index: Index of the sample in scikit-learn's `load_digits`.
        label: The digit, 0 to 9.
        mask: (H, W) float32 in 0..1, cropped to the rows and columns with ink.
    """

    index: int
    label: int
    mask: np.ndarray


class Scene(NamedTuple):
    """An image with its annotations.

    Attributes:
        image: (160, 160, 3) uint8, RGB.
        boxes: One (x1, y1, x2, y2) per digit, in pixels, x2 and y2 exclusive.
        digits: The digits, in the order of `boxes`.
        photograph: Name of the photograph.
        crop: (x1, y1, x2, y2) in pixels of the photograph.
    """

    image: np.ndarray
    boxes: list[tuple[int, int, int, int]]
    digits: list[Digit]
    photograph: str
    crop: tuple[int, int, int, int]


@functools.cache
def load_photographs() -> dict[str, np.ndarray]:
    """Load the photographs by name, (H, W, 3) uint8, RGB, from scikit-learn and scikit-image."""
    import skimage.data
    from sklearn.datasets import load_sample_image

    photographs = {}
    for name in PHOTOGRAPHS:
        if name in ("china", "flower"):
            photo = load_sample_image(f"{name}.jpg")
        else:
            photo = getattr(skimage.data, name)()
        photographs[name] = np.stack([photo] * 3, axis=-1) if photo.ndim == 2 else photo
    return photographs


@functools.cache
def load_samples() -> tuple[np.ndarray, np.ndarray]:
    """Load the handwritten digits (1797, 8, 8) float32 in 0..1, and their labels (1797,)."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    return (digits.images / 16).astype(np.float32), digits.target


def digit_indices(split: str) -> np.ndarray:
    """Return the indices of a split's samples. The last fifth of each class belongs to `val`."""
    labels = load_samples()[1]
    split_indices = []
    for label in range(len(CLASSES)):
        indices = np.flatnonzero(labels == label)
        boundary = len(indices) * 4 // 5
        split_indices.append(indices[:boundary] if split == "train" else indices[boundary:])
    return np.sort(np.concatenate(split_indices))


def photo_regions(split: str) -> dict[str, tuple[int, int, int, int]]:
    """Return the region (x1, y1, x2, y2) of each photograph that a split may use, in pixels."""
    regions = {}
    for name, photo in load_photographs().items():
        height, width = photo.shape[:2]
        boundary = width * 7 // 10
        regions[name] = (
            (0, 0, boundary, height) if split == "train" else (boundary, 0, width, height)
        )
    return regions


def make_scene(split: str, index: int, seed: int = 0) -> Scene:
    """Draw a scene, which depends on the arguments only.

    Args:
        split: `train` or `val`.
        index: Index of the image in its split.
        seed: Seed of the data set.
    """
    rng = np.random.default_rng((seed, SPLITS.index(split), index))
    image, photograph, crop = _background(split, rng)
    count = 0 if rng.random() < EMPTY_FRACTION else int(rng.integers(1, MAX_DIGITS + 1))
    heights = np.exp(rng.uniform(*np.log(HEIGHT_RANGE), size=count))
    lab = cv2.cvtColor(image.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)
    inked = np.zeros((SIZE, SIZE), bool)
    boxes, digits = [], []
    for height in sorted(heights, reverse=True):  # large digits first, while there is room
        digit = _draw_digit(split, height, rng)
        box = _place(digit.mask, boxes, inked, rng)
        if box is None:
            continue
        area = np.s_[box[1] : box[3], box[0] : box[2]]
        color_and_opacity = _choose_color(lab[area], rng)
        if color_and_opacity is None:
            continue
        color, opacity = color_and_opacity
        alpha = digit.mask[..., None] * np.float32(opacity)
        image[area] = np.rint(image[area] * (1 - alpha) + np.float32(color) * alpha)
        inked[area] |= digit.mask > INK_THRESHOLD
        boxes.append(box)
        digits.append(digit)
    return Scene(image, boxes, digits, photograph, crop)


def _background(split: str, rng: np.random.Generator) -> tuple[np.ndarray, str, tuple]:
    """Crop a random photograph to a square, and resize the crop to `SIZE`.

    Return the resized crop, the photograph's name, and the crop's box in the photograph.
    """
    name = list(PHOTOGRAPHS)[rng.integers(len(PHOTOGRAPHS))]
    x1, y1, x2, y2 = photo_regions(split)[name]
    side = int(rng.uniform(0.6 * SIZE, min(2 * SIZE, x2 - x1, y2 - y1)))
    x = int(rng.integers(x1, x2 - side + 1))
    y = int(rng.integers(y1, y2 - side + 1))
    crop = load_photographs()[name][y : y + side, x : x + side]
    if rng.random() < 0.5:
        crop = crop[:, ::-1]
    method = cv2.INTER_AREA if side > SIZE else cv2.INTER_CUBIC
    return cv2.resize(crop, (SIZE, SIZE), interpolation=method), name, (x, y, x + side, y + side)


def _draw_digit(split: str, height: float, rng: np.random.Generator) -> Digit:
    """Choose a digit of the split, enlarge it smoothly, and slant, rotate and stretch it."""
    samples, labels = load_samples()
    index = int(rng.choice(digit_indices(split)))
    scale = height / 8
    angle = np.deg2rad(rng.uniform(-15, 15))
    cos, sin = np.cos(angle), np.sin(angle)
    slant, stretch = rng.uniform(-0.2, 0.2), rng.uniform(0.8, 1.25)
    matrix = scale * np.array([[cos, -sin], [sin, cos]]) @ [[stretch, slant], [0, 1]]
    side = int(np.ceil(2 * height))
    shift = side / 2 - 0.5 - matrix @ [3.5, 3.5]  # pixel centers: 3.5 is the middle of 8 pixels
    warp = np.column_stack([matrix, shift])
    strength = cv2.warpAffine(samples[index], warp, (side, side), flags=cv2.INTER_CUBIC)
    # The edge of a stroke is about two pixels wide at every size, and softer for small digits.
    mask = np.clip((strength - 0.5) * max(1.5, scale / 2) + 0.5, 0, 1)
    ink = mask > INK_THRESHOLD
    rows, columns = np.flatnonzero(ink.any(1)), np.flatnonzero(ink.any(0))
    mask = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    return Digit(index, int(labels[index]), mask)


def _place(
    mask: np.ndarray, boxes: list, inked: np.ndarray, rng: np.random.Generator
) -> tuple[int, int, int, int] | None:
    """Find a box that hardly overlaps the other digits, or return None if the search fails.

    Args:
        mask: Mask of the digit, (H, W).
        boxes: Boxes of the other digits.
        inked: (SIZE, SIZE) bool, the ink of the other digits.
        rng: The random generator.
    """
    height, width = mask.shape
    if height > SIZE or width > SIZE:
        return None
    for _ in range(50):
        x, y = int(rng.integers(SIZE - width + 1)), int(rng.integers(SIZE - height + 1))
        box = (x, y, x + width, y + height)
        if any(_overlap(box, other) > MAX_OVERLAP for other in boxes):
            continue
        if not (inked[y : y + height, x : x + width] & (mask > 0)).any():
            return box
    return None


def _overlap(a: tuple, b: tuple) -> float:
    """Return the intersection of two boxes, divided by the area of the smaller box."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (a, b)]
    return max(width, 0) * max(height, 0) / min(areas)


def _choose_color(lab: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, float] | None:
    """Choose an RGB color (3,) in 0..255 and an opacity that are legible on a background.

    Args:
        lab: Background, (H, W, 3) float32 in CIELAB.
        rng: The random generator.

    Returns:
        Color and opacity, or None if none of 50 random choices is legible.
    """
    for _ in range(50):
        color, opacity = rng.integers(0, 256, 3), rng.uniform(0.7, 1)
        if contrast(lab, color, opacity) >= MIN_CONTRAST:
            return color, opacity
    return None


def contrast(lab: np.ndarray, color: np.ndarray, opacity: float) -> float:
    """Return the contrast between ink and its background: a distance in CIELAB, times the opacity.

    Nine tenths of the background's pixels have at least this distance to the color of the ink.

    Args:
        lab: Background, (H, W, 3) float32 in CIELAB.
        color: RGB color of the ink, (3,) in 0..255.
        opacity: Opacity of the ink, 0 to 1.
    """
    ink = cv2.cvtColor(np.float32(color).reshape(1, 1, 3) / 255, cv2.COLOR_RGB2LAB)
    return opacity * float(np.quantile(np.linalg.norm(lab - ink, axis=-1), 0.1))
