"""Drawing boxes and their names on an image.

Boxes are (x1, y1, x2, y2) in pixels of the image, and an image is whatever
`mixdet.images.as_rgb` takes.
"""

from __future__ import annotations

import base64
import colorsys
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from mixdet.images import as_rgb


def draw_detections(
    image: Any,
    boxes: np.ndarray,
    scores: np.ndarray,
    labels: np.ndarray,
    names: Sequence[str],
    min_size: int = 480,
) -> np.ndarray:
    """Draw boxes in a color a class, each with its name and score.

    Args:
        image: The image.
        boxes: (n, 4).
        scores: (n,) in 0..1.
        labels: (n,), which choose the colors.
        names: n names, one a box.
        min_size: An image whose longer side is shorter is enlarged to it, so that the names can be
            read; 0 keeps every image's size.

    Returns:
        (H, W, 3) uint8, RGB.
    """
    rgb = as_rgb(image)
    longer = max(rgb.shape[:2])
    canvas, scale = enlarged(rgb, max(longer, min_size))
    size = max(canvas.size)
    draw, font = ImageDraw.Draw(canvas), font_of_size(max(13, size // 45))
    plates: list[tuple] = []
    boxes = np.asarray(boxes, float).reshape(-1, 4) * scale
    for box, label in zip(boxes, labels, strict=True):
        draw_box(draw, box, _class_color(int(label)), max(2, size // 300))
    for box, score, label, name in zip(boxes, scores, labels, names, strict=True):
        write_plate(draw, plates, box, f"{name} {score:.2f}", _class_color(int(label)), font)
    return np.asarray(canvas)


def enlarged(rgb: np.ndarray, size: int) -> tuple[Image.Image, float]:
    """The image with `size` pixels on its longer side, and the factor between the two."""
    image = Image.fromarray(rgb)
    scale = size / max(image.size)
    shape = tuple(max(1, round(side * scale)) for side in image.size)
    return image.resize(shape, Image.Resampling.BICUBIC) if scale != 1 else image, scale


def data_url(image: Image.Image) -> str:
    """The image as a JPEG inside a URL, for pages that ask nothing of any other file."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def draw_box(draw: ImageDraw.ImageDraw, box: Any, color: tuple, width: int, dashed=False) -> None:
    """Outline a box inside its edges."""
    x1, y1, x2, y2 = (round(float(side)) for side in box)
    if not dashed:
        draw.rectangle((x1, y1, max(x1, x2 - 1), max(y1, y2 - 1)), outline=color, width=width)
        return
    for start in range(x1, x2, 8):
        for y in (y1, y2 - 1):
            draw.line((start, y, min(start + 4, x2 - 1), y), fill=color, width=width)
    for start in range(y1, y2, 8):
        for x in (x1, x2 - 1):
            draw.line((x, start, x, min(start + 4, y2 - 1)), fill=color, width=width)


def write_plate(
    draw: ImageDraw.ImageDraw,
    plates: list[tuple],
    box: Any,
    text: str,
    color: tuple,
    font: Any,
    below: bool = False,
) -> None:
    """Write on a colored plate above the box, or where it hides the fewest other plates."""
    _, _, right, bottom = font.getbbox(text, anchor="la")
    width, height = right + 5, bottom + 4
    wide, high = draw.im.size
    x1, y1, x2, y2 = (round(float(side)) for side in box)
    spots = [(x1, y1 - height), (x2 - width, y1 - height), (x1, y2), (x2 - width, y2), (x1, y1)]
    if below:
        spots = spots[2:4] + spots[:2] + spots[4:]
    choices = []
    for order, (x, y) in enumerate(spots):
        x, y = min(max(x, 0), max(0, wide - width)), min(max(y, 0), max(0, high - height))
        plate = (x, y, x + width, y + height)
        hidden = sum(_meet(plate, other) for other in plates)
        choices.append((hidden, _meet(plate, (x1, y1, x2, y2)), order, plate))
    plate = min(choices)[-1]
    plates.append(plate)
    draw.rectangle((*plate[:2], plate[2] - 1, plate[3] - 1), fill=color)
    ink = (0, 0, 0) if np.dot(color, (0.299, 0.587, 0.114)) > 110 else (255, 255, 255)
    draw.text((plate[0] + 3, plate[1] + 1), text, fill=ink, font=font)


def _meet(a: tuple, b: tuple) -> int:
    """Intersection of two boxes in pixels."""
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    return max(width, 0) * max(height, 0)


def _class_color(label: int) -> tuple[int, int, int]:
    """A bright color; the golden ratio keeps the hues of neighboring labels apart."""
    red, green, blue = colorsys.hsv_to_rgb(label * 0.618034 % 1, 0.85, 1)
    return round(255 * red), round(255 * green), round(255 * blue)


def font_of_size(size: int) -> Any:
    """The font that Pillow ships, so that images look alike everywhere."""
    return ImageFont.load_default(size)
