"""Draw a scene: a crop of a photograph, or colors, with invented objects and their boxes.

The photographs are those of the digit scenes: the wheels of scikit-learn and scikit-image contain
them. The right 30 % of each photograph is for validation, and the rest for training.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import cv2
import numpy as np

from mixdet.digit_scenes.drawing import SPLITS, load_photographs, photo_regions
from mixdet.shape_scenes.objects import CLASSES, Photographs, crop_photograph, draw_object

SIZE = 160  # width and height of an image in pixels
SIZES = (9.0, 130.0)  # of an object in pixels, log-uniform
SMALL_SIZES = (9.0, 32.0)  # of the objects of a crowded scene
MIN_SIDE = 5  # of a box in pixels
MIN_VISIBLE = 0.25  # fraction of an object; other objects may hide the rest


class Scene(NamedTuple):
    """An image with its annotations.

    Attributes:
        image: (160, 160, 3) uint8, RGB.
        boxes: One (x1, y1, x2, y2) per object, around what is visible of it, in pixels.
        labels: Labels of the objects, in the order of `boxes`.
    """

    image: np.ndarray
    boxes: list[tuple[int, int, int, int]]
    labels: list[int]


@functools.cache
def _photographs(split: str) -> Photographs:
    regions = photo_regions(split)
    return {name: (photo, regions[name]) for name, photo in load_photographs().items()}


def make_scene(split: str, index: int, seed: int = 0) -> Scene:
    """Draw a scene, which depends on the arguments only.

    Args:
        split: `train` or `val`.
        index: Index of the image in its split.
        seed: Seed of the data set.
    """
    rng = np.random.default_rng((seed, SPLITS.index(split), index))
    photographs = _photographs(split)
    image = _background(rng, photographs)
    count, sizes = int(rng.integers(2, 8)), SIZES
    if rng.random() < 0.3:
        count, sizes = 2 * count, SMALL_SIZES
    few = rng.choice(len(CLASSES), 3)  # half of the objects belong to these classes
    objects: list[tuple[int, np.ndarray, int]] = []
    for size in sorted(np.exp(rng.uniform(*np.log(sizes), count)), reverse=True):
        label = int(few[rng.integers(3)] if rng.random() < 0.5 else rng.integers(len(CLASSES)))
        center = tuple(rng.uniform(0, SIZE, 2))
        mask = draw_object(image, label, center, size, rng, photographs)
        for _, other, _ in objects:
            other &= ~mask
        objects.append((label, mask, int(mask.sum())))
    scene = Scene(_photograph_like(image, rng), [], [])
    for label, mask, area in objects:
        if mask.sum() < MIN_VISIBLE * area or not mask.any():
            continue
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        box = (*map(int, (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)),)
        if min(box[2] - box[0], box[3] - box[1]) >= MIN_SIDE:
            scene.boxes.append(box)
            scene.labels.append(label)
    return scene


def _background(rng: np.random.Generator, photographs: Photographs) -> np.ndarray:
    """Return a crop of a photograph, or mostly colors: (160, 160, 3) float32 in 0..255."""
    name = [*photographs][rng.integers(len(photographs))]
    image = crop_photograph(*photographs[name], (0.3, 1.0), rng, (SIZE, SIZE))
    if rng.random() < 0.5:
        image = image[:, ::-1].copy()
    if rng.random() < 0.3:
        cells = int(rng.integers(2, 10))
        colors = rng.random((cells, cells, 3), np.float32) * 255
        colors = cv2.resize(colors, (SIZE, SIZE), interpolation=cv2.INTER_CUBIC)
        image = image * rng.uniform(0, 0.5) + colors * 0.6
    return np.clip(image * rng.uniform(0.5, 1.2) + rng.uniform(-30, 40), 0, 255)


def _photograph_like(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Add what cameras do: blur, gray images, color casts and noise. Return uint8."""
    if rng.random() < 0.4:
        image = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.4, 1.3))
    if rng.random() < 0.15:
        image = np.broadcast_to(image.mean(-1, keepdims=True), image.shape)
    image = image * rng.uniform(0.85, 1.15, 3)
    image = image + rng.normal(0, rng.uniform(0, 8), image.shape)
    return np.clip(image, 0, 255).astype(np.uint8)
