"""Images and videos of a bright square, and a detector that finds it, to test prediction."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from mixdet.images import as_rgb
from mixdet.inference import Detections


class BrightSpot:
    """A fake detector. It finds one box around all bright pixels of an image."""

    classes = ("spot",)

    def __call__(self, images, *, score_thr=0.0, batch_size=8):
        assert len(images) <= batch_size
        return [self.detect(as_rgb(image)).above(score_thr) for image in images]

    def detect(self, image: np.ndarray) -> Detections:
        rows, columns = np.nonzero(image.min(-1) > 128)
        if not len(rows):
            return Detections(np.zeros((0, 4), np.float32), np.zeros(0), np.zeros(0, int), [])
        box = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        return Detections(np.float32([box]), np.float32([0.75]), np.array([0]), ["spot"])


class InterruptedDetector(BrightSpot):
    """A detector that Ctrl-C interrupts at the fourth batch."""

    batches = 0

    def __call__(self, images, **kwargs):
        self.batches += 1
        if self.batches == 4:
            raise KeyboardInterrupt
        return super().__call__(images, **kwargs)


def spot(x: int, y: int, shape=(120, 160)) -> np.ndarray:
    image = np.full((*shape, 3), 30, np.uint8)
    image[y : y + 20, x : x + 20] = 255
    return image


def write_video(path: Path, frames: list[np.ndarray], rate: float, codec: str = "MJPG") -> Path:
    height, width = frames[0].shape[:2]
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*codec), rate, (width, height))
    assert writer.isOpened()
    for frame in frames:
        writer.write(np.ascontiguousarray(frame[..., ::-1]))
    writer.release()
    return path


def read_video(path: Path) -> tuple[list[np.ndarray], float]:
    capture, frames = cv2.VideoCapture(str(path)), []
    rate = capture.get(cv2.CAP_PROP_FPS)
    while (read := capture.read())[0]:
        frames.append(read[1][..., ::-1])
    return frames, rate
