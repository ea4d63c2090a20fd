"""Draw boxes and their labels on an image.

Boxes are (x1, y1, x2, y2) in pixels of the image. An image is anything that
`mixdet.images.as_rgb` accepts.
"""

from __future__ import annotations

import base64
import colorsys
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from mixdet.images import as_rgb
from mixdet.visual.text import FittedText

DASH = 8  # pixels from the start of a dash to the start of the next one


def draw_detections(
    image: Any,
    boxes: np.ndarray,
    scores: np.ndarray,
    labels: np.ndarray,
    names: Sequence[str],
    min_size: int = 480,
) -> np.ndarray:
    """Draw each box with its class name and its score, in one color per class.

    Args:
        image: The image; it is not changed.
        boxes: (n, 4).
        scores: (n,) from 0 to 1.
        labels: (n,) class indices, which select the colors.
        names: (n,) the class name of each box.
        min_size: An image is enlarged until its longer side has this many pixels, so that the names
            are readable. 0 keeps the size of every image.

    Returns:
        The drawn image, (H, W, 3) uint8, RGB.
    """
    rgb = as_rgb(image)
    canvas, scale = resize_longer_side(rgb, max(*rgb.shape[:2], min_size))
    size = max(canvas.size)
    draw, font_size = ImageDraw.Draw(canvas), max(13, size // 45)
    placed: list[tuple] = []
    boxes = np.asarray(boxes, float).reshape(-1, 4) * scale
    for box, label in zip(boxes, labels, strict=True):
        draw_box(draw, box, _class_color(int(label)), max(2, size // 300))
    for box, score, label, name in zip(boxes, scores, labels, names, strict=True):
        draw_label(draw, placed, box, f"{name} {score:.2f}", _class_color(int(label)), font_size)
    return np.asarray(canvas)


def resize_longer_side(rgb: np.ndarray, size: int) -> tuple[Image.Image, float]:
    """Resize an image so that its longer side has `size` pixels.

    Args:
        rgb: (H, W, 3) uint8.
        size: Pixels of the longer side.

    Returns:
        The resized image, and the factor from the old size to the new one.
    """
    image = Image.fromarray(rgb)
    scale = size / max(image.size)
    shape = tuple(max(1, round(side * scale)) for side in image.size)
    return image.resize(shape, Image.Resampling.BICUBIC) if scale != 1 else image, scale


def data_url(image: Image.Image) -> str:
    """Return the image as a JPEG data URL, for HTML pages that load no other file."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def draw_box(
    draw: ImageDraw.ImageDraw, box: Any, color: tuple, width: int, dashed: bool = False
) -> None:
    """Draw the outline of a box. A solid outline lies inside the edges of the box.

    Args:
        draw: Where to draw.
        box: (x1, y1, x2, y2).
        color: RGB.
        width: Pixels of the line.
        dashed: Draw dashes instead of a solid line.
    """
    x1, y1, x2, y2 = (round(float(side)) for side in box)
    if not dashed:
        draw.rectangle((x1, y1, max(x1, x2 - 1), max(y1, y2 - 1)), outline=color, width=width)
        return
    for start in range(x1, x2, DASH):
        for y in (y1, y2 - 1):
            draw.line((start, y, min(start + DASH // 2, x2 - 1), y), fill=color, width=width)
    for start in range(y1, y2, DASH):
        for x in (x1, x2 - 1):
            draw.line((x, start, x, min(start + DASH // 2, y2 - 1)), fill=color, width=width)


def draw_label(
    draw: ImageDraw.ImageDraw,
    placed: list[tuple],
    box: Any,
    text: str,
    color: tuple,
    font_size: int,
    below: bool = False,
) -> None:
    """Write a text on a colored background beside a box. A wide text is broken into lines.

    Five positions are tried: above and below the box, each aligned with its left or its right side,
    and inside its upper left corner. The chosen position hides the least area of other labels.
    Among equal positions, the one that hides the least area of the box is chosen.

    Args:
        draw: Where to draw.
        placed: Labels drawn so far, as (x1, y1, x2, y2). The new label is appended.
        box: (x1, y1, x2, y2).
        text: The text.
        color: RGB of the background.
        font_size: Size of the font in pixels.
        below: Prefer the positions below the box.
    """
    canvas_width, canvas_height = draw.im.size
    fitted = FittedText(text, font_size, canvas_width - 6)
    width, height = fitted.width + 6, fitted.height + 2
    x1, y1, x2, y2 = (round(float(side)) for side in box)
    corners = [(x1, y1 - height), (x2 - width, y1 - height), (x1, y2), (x2 - width, y2), (x1, y1)]
    if below:
        corners = corners[2:4] + corners[:2] + corners[4:]
    candidates = []
    for order, (x, y) in enumerate(corners):
        x = min(max(x, 0), max(0, canvas_width - width))
        y = min(max(y, 0), max(0, canvas_height - height))
        label = (x, y, x + width, y + height)
        hidden = sum(_intersection(label, other) for other in placed)
        candidates.append((hidden, _intersection(label, (x1, y1, x2, y2)), order, label))
    label = min(candidates)[-1]
    placed.append(label)
    draw.rectangle((*label[:2], label[2] - 1, label[3] - 1), fill=color)
    ink = (0, 0, 0) if np.dot(color, (0.299, 0.587, 0.114)) > 110 else (255, 255, 255)
    fitted.draw(draw, (label[0] + 3, label[1] + 1), ink)


def _intersection(a: tuple, b: tuple) -> int:
    """Return the area of the intersection of two boxes in pixels."""
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    return max(width, 0) * max(height, 0)


def _class_color(label: int) -> tuple[int, int, int]:
    """Return a bright color. Steps of the golden ratio give neighboring labels different hues."""
    red, green, blue = colorsys.hsv_to_rgb(label * 0.618034 % 1, 0.85, 1)
    return round(255 * red), round(255 * green), round(255 * blue)
