"""Draw detections on an image, and write the image, with or without Pillow."""

from __future__ import annotations

import colorsys
from pathlib import Path

import cv2
import numpy as np

from mixdet.errors import MixDetError
from mixdet.inference.detector import Detections
from mixdet.inference.inputs import free_name
from mixdet.inference.results import write_error

MAX_SIDES = {".jpeg": 65_500, ".jpg": 65_500, ".webp": 16_383}  # longest side that a format allows
JPEG_OPTIONS, WEBP_OPTIONS = [cv2.IMWRITE_JPEG_QUALITY, 92], [cv2.IMWRITE_WEBP_QUALITY, 92]
OPTIONS = {".jpeg": JPEG_OPTIONS, ".jpg": JPEG_OPTIONS, ".webp": WEBP_OPTIONS}
MIN_SIZE = 480  # a smaller image is enlarged to this longer side, so that names are readable


def draw(image: np.ndarray, detections: Detections) -> np.ndarray:
    """Draw each box with its class name and its score, in one color per class.

    Args:
        image: (H, W, 3) uint8 RGB.
        detections: The detections in the image.

    Returns:
        The drawn image, (H, W, 3) uint8 RGB, enlarged if it is small.
    """
    try:
        from mixdet.visual.boxes import draw_detections
    except ModuleNotFoundError:  # a machine that only predicts may lack Pillow and pycocotools
        return _draw_with_opencv(image, detections)
    boxes, scores, labels = detections.boxes, detections.scores, detections.labels
    return draw_detections(image, boxes, scores, labels, detections.names, MIN_SIZE)


def _draw_with_opencv(image: np.ndarray, detections: Detections) -> np.ndarray:
    """Draw boxes without Pillow. OpenCV 4 replaces each character beyond ASCII by `?`."""
    scale = max(1.0, MIN_SIZE / max(image.shape[:2]))
    size = [max(1, round(side * scale)) for side in image.shape[1::-1]]
    canvas = np.ascontiguousarray(cv2.resize(image, size, interpolation=cv2.INTER_CUBIC))
    thickness, font_scale = max(2, max(size) // 300), max(size) / 1000
    boxes = np.rint(np.asarray(detections.boxes, float).reshape(-1, 4) * scale).astype(int).tolist()
    details = zip(detections.scores, detections.labels, detections.names, strict=True)
    for (x1, y1, x2, y2), (score, label, name) in zip(boxes, details, strict=True):
        # Steps of the golden ratio give neighboring labels different hues
        color = [round(255 * part) for part in colorsys.hsv_to_rgb(label * 0.618034 % 1, 0.85, 1)]
        cv2.rectangle(canvas, (x1, y1), (x2 - 1, y2 - 1), color, thickness)
        text_height = round(34 * font_scale)
        place = x1, (y1 if y1 > text_height else min(y2 + text_height, size[1])) - 4
        text = f"{name} {score:.2f}"
        cv2.putText(
            canvas, text, place, cv2.FONT_HERSHEY_SIMPLEX, font_scale, color, 1, cv2.LINE_AA
        )
    return canvas


def writable_path(path: Path, image: np.ndarray, taken: set[Path]) -> Path:
    """Return the path, or that of a PNG if the image is too large for the path's file format.

    Args:
        path: The file for the drawing.
        image: (H, W, 3). Drawings of large images have the size of the image.
        taken: Paths that the PNG must not overwrite. The path of the PNG is added to the set.
    """
    if max(image.shape[:2]) > MAX_SIDES.get(path.suffix, np.inf):
        path = free_name(path.with_suffix(".png"), taken)
        taken.add(path)
    return path


def write_image(image: np.ndarray, path: Path) -> None:
    """Write an image.

    Args:
        image: (H, W, 3) uint8 RGB.
        path: The file.

    Raises:
        MixDetError: The file cannot be written.
    """
    bgr = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    encoded, content = cv2.imencode(path.suffix, bgr, OPTIONS.get(path.suffix, []))
    if not encoded:
        raise MixDetError(f"{path} cannot be written: OpenCV cannot encode an image of its size")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            try:
                file.write(content)
                file.flush()
            except OSError:
                path.unlink()
                raise
    except OSError as error:
        raise write_error(path, error) from error
