"""Draw one digit scene: handwritten digits on a crop of a photograph, and where they stand.

The sources ship inside the scikit-learn and scikit-image wheels; nothing is downloaded. The
validation split shares no digit and no pixel of a photograph with the training split:

- of each class the last fifth of the samples is for validation. The samples stand in the order in
  which they were collected, so those are mostly digits in other hands;
- of each photograph the right 30 % is for validation, the rest for training.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import cv2
import numpy as np

CLASSES = tuple("0123456789")
SPLITS = ("train", "val")

SIZE = 160  # Width and height of an image, in pixels.
HEIGHTS = (18.0, 125.0)  # Height of an upright digit in pixels, uniform in its logarithm.
MOST_DIGITS = 5
EMPTY_SHARE = 0.05  # Share of the images without a digit.
INK = 0.5  # A pixel is ink, and inside the tight box, where the mask is above this.
MAX_COVER = 0.1  # Intersection of two boxes, over the smaller box's area. Ink never meets ink.
# Legibility: the least CIELAB distance between the drawn digit and the photograph, for nine tenths
# of the pixels in the digit's box (a distance of 2 is just noticeable, black on white is 100).
MIN_CONTRAST = 25.0

# Photographs by name, with the id of their license in `digit_scenes.LICENSES`. Left out: those with
# text in them (page, text, logo, astronaut, coins, the motorcycle) and the nearly blank ones (moon,
# cell, clock).
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
    """A digit ready to be pasted."""

    index: int  # of the sample in `load_digits`
    label: int
    mask: np.ndarray  # (H, W) float32 in 0..1, cut to the rows and columns that hold ink


class Scene(NamedTuple):
    """One image and what is in it."""

    image: np.ndarray  # (160, 160, 3) uint8, RGB
    boxes: list[tuple[int, int, int, int]]  # x1, y1, x2, y2 in pixels, x2 and y2 exclusive
    digits: list[Digit]
    photograph: str
    crop: tuple[int, int, int, int]  # of the photograph: x1, y1, x2, y2


@functools.cache
def load_photographs() -> dict[str, np.ndarray]:
    """The photographs by name, each (H, W, 3) uint8 RGB, from the two installed packages."""
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
    """The handwritten digits (1797, 8, 8) float32 in 0..1, and their labels (1797,)."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    return (digits.images / 16).astype(np.float32), digits.target


def digit_indices(split: str) -> np.ndarray:
    """Indices of the samples that a split may use: the last fifth of each class is `val`."""
    labels = load_samples()[1]
    chosen = []
    for label in range(len(CLASSES)):
        indices = np.flatnonzero(labels == label)
        cut = len(indices) * 4 // 5
        chosen.append(indices[:cut] if split == "train" else indices[cut:])
    return np.sort(np.concatenate(chosen))


def photo_regions(split: str) -> dict[str, tuple[int, int, int, int]]:
    """Region (x1, y1, x2, y2) in pixels of each photograph that a split may use."""
    regions = {}
    for name, photo in load_photographs().items():
        height, width = photo.shape[:2]
        cut = width * 7 // 10
        regions[name] = (0, 0, cut, height) if split == "train" else (cut, 0, width, height)
    return regions


def make_scene(split: str, index: int, seed: int = 0) -> Scene:
    """Draw one image, a function of the arguments alone.

    Args:
        split: `train` or `val`.
        index: Number of the image in its split.
        seed: Seed of the data set.
    """
    rng = np.random.default_rng((seed, SPLITS.index(split), index))
    image, photograph, crop = _background(split, rng)
    wanted = 0 if rng.random() < EMPTY_SHARE else int(rng.integers(1, MOST_DIGITS + 1))
    heights = np.exp(rng.uniform(*np.log(HEIGHTS), size=wanted))
    lab = cv2.cvtColor(image.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)
    taken = np.zeros((SIZE, SIZE), bool)
    boxes, digits = [], []
    for height in sorted(heights, reverse=True):  # large ones first: they find room last
        digit = _digit(split, height, rng)
        box = _place(digit.mask, boxes, taken, rng)
        if box is None:
            continue
        area = np.s_[box[1] : box[3], box[0] : box[2]]
        ink = _color(lab[area], rng)
        if ink is None:
            continue
        color, opacity = ink
        alpha = digit.mask[..., None] * np.float32(opacity)
        image[area] = np.rint(image[area] * (1 - alpha) + np.float32(color) * alpha)
        taken[area] |= digit.mask > INK
        boxes.append(box)
        digits.append(digit)
    return Scene(image, boxes, digits, photograph, crop)


def _background(split: str, rng: np.random.Generator) -> tuple[np.ndarray, str, tuple]:
    """A square crop of a photograph at the image's size, its photograph and its place there."""
    name = list(PHOTOGRAPHS)[rng.integers(len(PHOTOGRAPHS))]
    x1, y1, x2, y2 = photo_regions(split)[name]
    side = int(rng.uniform(0.6 * SIZE, min(2 * SIZE, x2 - x1, y2 - y1)))
    x = int(rng.integers(x1, x2 - side + 1))
    y = int(rng.integers(y1, y2 - side + 1))
    crop = load_photographs()[name][y : y + side, x : x + side]
    if rng.random() < 0.5:
        crop = crop[:, ::-1]
    shrinks = side > SIZE
    method = cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC
    return cv2.resize(crop, (SIZE, SIZE), interpolation=method), name, (x, y, x + side, y + side)


def _digit(split: str, height: float, rng: np.random.Generator) -> Digit:
    """Draw a digit of the split, enlarge it smoothly, slant, turn and stretch it a little."""
    samples, labels = load_samples()
    index = int(rng.choice(digit_indices(split)))
    scale = height / 8
    turn = np.deg2rad(rng.uniform(-15, 15))
    cos, sin = np.cos(turn), np.sin(turn)
    slant, stretch = rng.uniform(-0.2, 0.2), rng.uniform(0.8, 1.25)
    matrix = scale * np.array([[cos, -sin], [sin, cos]]) @ [[stretch, slant], [0, 1]]
    side = int(np.ceil(2 * height))
    shift = side / 2 - 0.5 - matrix @ [3.5, 3.5]  # pixel centers: 3.5 is the middle of 8 pixels
    warp = np.column_stack([matrix, shift])
    strength = cv2.warpAffine(samples[index], warp, (side, side), flags=cv2.INTER_CUBIC)
    # The pen's edge is about two pixels wide whatever the size; small digits keep their softness.
    mask = np.clip((strength - 0.5) * max(1.5, scale / 2) + 0.5, 0, 1)
    rows, columns = np.flatnonzero((mask > INK).any(1)), np.flatnonzero((mask > INK).any(0))
    mask = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    return Digit(index, int(labels[index]), mask)


def _place(mask: np.ndarray, boxes: list, taken: np.ndarray, rng: np.random.Generator):
    """A box for the mask inside the image that leaves the other digits alone, or None."""
    height, width = mask.shape
    if height > SIZE or width > SIZE:
        return None
    for _ in range(50):
        x, y = int(rng.integers(SIZE - width + 1)), int(rng.integers(SIZE - height + 1))
        box = (x, y, x + width, y + height)
        if any(_cover(box, other) > MAX_COVER for other in boxes):
            continue
        if not (taken[y : y + height, x : x + width] & (mask > 0)).any():
            return box
    return None


def _cover(a: tuple, b: tuple) -> float:
    """Intersection of two boxes over the area of the smaller."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (a, b)]
    return max(width, 0) * max(height, 0) / min(areas)


def _color(lab: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, float] | None:
    """An RGB color (3,) in 0..255 and an opacity that can be read on a background, or None.

    Args:
        lab: Background, (H, W, 3) float32 in CIELAB.
        rng: Source of chance.
    """
    for _ in range(50):
        color, opacity = rng.integers(0, 256, 3), rng.uniform(0.7, 1)
        if contrast(lab, color, opacity) >= MIN_CONTRAST:
            return color, opacity
    return None


def contrast(lab: np.ndarray, color: np.ndarray, opacity: float) -> float:
    """CIELAB distance that nine tenths of the background's pixels keep from the ink drawn on it."""
    ink = cv2.cvtColor(np.float32(color).reshape(1, 1, 3) / 255, cv2.COLOR_RGB2LAB)
    return opacity * float(np.quantile(np.linalg.norm(lab - ink, axis=-1), 0.1))
