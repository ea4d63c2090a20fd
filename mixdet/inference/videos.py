"""Read the frames of videos and cameras, and write videos, with OpenCV."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np

from mixdet.errors import MixDetError
from mixdet.inference.containers import (
    container_kind,
    is_whole_matroska,
    mp4_edited_seconds,
)
from mixdet.inference.inputs import is_utf8
from mixdet.inference.results import DiskError, write_error
from mixdet.outputs import writable_folder

# Limits of MPEG-4 video: the side of a frame, and the numerator of the frame rate as a fraction
MPEG4_MAX_SIDE = 8190
MPEG4_MAX_RATE = 65535
DEFAULT_RATE = 25.0  # of a video or a camera that states no frame rate
# A file without a frame rate often states the rate of its clock instead, such as 1000 or 90,000
MAX_PLAUSIBLE_RATE = 240.0


class VideoReader:
    """The frames of a video file, a stream or a camera.

    Attributes:
        name: The path or address, or `camera N`.
        live: Whether the source is a camera.
        total: Number of frames that the file states. None if no number is known, as for a stream.
        read: Number of frames that were read.

    Args:
        source: A video file, the address of a stream, or the number of a camera.

    Raises:
        MixDetError: OpenCV cannot open the source.
    """

    def __init__(self, source: str | os.PathLike | int) -> None:
        self.live = isinstance(source, int)
        self.name = f"camera {source}" if self.live else os.fspath(source)
        self._path: Path | None = None  # None for a stream, which may end at any time
        if self.live:
            self._capture = cv2.VideoCapture(source)
        elif not is_utf8(self.name):
            raise MixDetError(f"cannot read {self.name!a}: its name is not UTF-8: rename the file")
        elif "://" in self.name:
            self._capture = cv2.VideoCapture(self.name)
        else:
            # FFmpeg takes `clip:1.mp4` for an address, but not an absolute path
            path = Path(self.name).absolute()
            self._path = path if path.is_file() else None
            self._capture = cv2.VideoCapture(str(path))
        self.read = 0
        self._times: list[float] = []  # position of each frame in the video, in seconds
        opened = self._capture.isOpened()
        self._rate = self._capture.get(cv2.CAP_PROP_FPS) if opened else 0.0
        total = self._capture.get(cv2.CAP_PROP_FRAME_COUNT) if opened else 0.0
        self.total = int(total) if not self.live and 0 < total < 2**40 else None

    def frames(self) -> Iterator[np.ndarray]:
        """Yield the frames, (H, W, 3) uint8 RGB."""
        while True:
            read, bgr = self._capture.read()
            if not read:
                return
            self.read += 1
            self._times.append(self._capture.get(cv2.CAP_PROP_POS_MSEC) / 1000)
            yield np.ascontiguousarray(bgr[..., ::-1])

    @property
    def rate(self) -> float:
        """Frames per second. If the source states no rate, it is measured on the frames so far."""
        if math.isfinite(self._rate) and 0 < self._rate <= MAX_PLAUSIBLE_RATE:
            return self._rate
        seconds = self._times[-1] - self._times[0] if self._times else 0
        return (len(self._times) - 1) / seconds if seconds > 0 else DEFAULT_RATE

    def fault(self) -> str | None:
        """Say what is wrong if no frame could be read, or fewer than the file states.

        Call it after `frames` has ended.
        """
        if not self.read:
            why = (
                "is it connected and free?" if self.live else "it is damaged, or it is not a video"
            )
            return f"cannot read a frame of {self.name}: {why}"
        if self._lacks_frames():
            return (
                f"{self.name} is damaged or cut short: only {self.read} of {self.total} frames "
                "could be read: copy the file again"
            )
        return None

    def _lacks_frames(self) -> bool:
        """Tell whether frames are missing because the file is damaged or cut short.

        The number of frames that OpenCV reports is not exact. For many formats, OpenCV computes it
        from the length of the longest track, which can be the sound, and from the frame rate, which
        can vary.
        """
        missing = (self.total or 0) - self.read
        if missing <= 0 or self._path is None or not self._rate > 0:
            return False
        kind = container_kind(self._path)
        if kind == "matroska":
            return not is_whole_matroska(self._path)
        stated = self.total / self._rate
        if kind == "mp4":
            edited = mp4_edited_seconds(self._path)
            if edited > stated - 0.5 / self._rate and missing > 2:
                return True  # the edit list does not explain the missing frames
            stated = min(stated, edited)
        gaps = np.diff(self._times)
        if (gaps <= 0).any():  # an MPEG program stream, which states no length
            return False
        gap = max(gaps.max(initial=0), 1 / self._rate)
        # In other formats, the stated length can be the sound's, which can be a second longer
        slack = 1.5 * gap if kind in ("avi", "mp4") else max(1.5 * gap, 1.2)
        return self._times[-1] + gap + slack < stated

    def close(self) -> None:
        """Release the file or the camera."""
        self._capture.release()


class VideoWriter:
    """A video file of MPEG-4 (`.mp4`). It is created with its first frame.

    Args:
        path: The file.
    """

    def __init__(self, path: str | os.PathLike) -> None:
        self.path = Path(path)
        self._writer: cv2.VideoWriter | None = None
        self._written = 0
        self._refusal: str | None = None

    def write(self, image: np.ndarray, rate: float) -> None:
        """Add a frame. A frame that is too large for MPEG-4 is reduced.

        If the file cannot be created, nothing is written, and `fault` says why.

        Args:
            image: (H, W, 3) uint8 RGB.
            rate: Frames per second. Only the first call uses it.

        Raises:
            DiskError: No further file can be written, for example because the disk is full.
        """
        if self._refusal:
            return
        bgr = np.ascontiguousarray(_fit(image)[..., ::-1])
        if self._writer is None:
            try:
                self._writer = self._open(rate, bgr.shape)
            except DiskError:
                raise
            except MixDetError as error:
                self._refusal = str(error)
                return
        self._writer.write(bgr)
        self._written += 1

    def close(self) -> None:
        """Complete the file."""
        if self._writer:
            self._writer.release()
            self._writer = None

    def fault(self) -> str | None:
        """Say what is wrong if the closed file lacks frames. OpenCV's writer raises no errors."""
        if self._refusal or not self._written:
            return self._refusal
        capture = cv2.VideoCapture(str(self.path.absolute()))
        frames = capture.get(cv2.CAP_PROP_FRAME_COUNT) if capture.isOpened() else 0
        return f"{self.path} is not complete: is the disk full?" if frames < self._written else None

    def _open(self, rate: float, shape: tuple[int, ...]) -> cv2.VideoWriter:
        writable_folder("--out", self.path.parent)
        if not is_utf8(self.path):
            raise MixDetError(f"cannot write {str(self.path)!a}: the name is not UTF-8")
        try:
            self.path.open("wb").close()
        except OSError as error:
            raise write_error(self.path, error) from error
        codec = cv2.VideoWriter.fourcc(*"mp4v")
        path, size = str(self.path.absolute()), (shape[1], shape[0])
        writer = cv2.VideoWriter(path, codec, mpeg4_rate(rate), size)
        if not writer.isOpened():
            raise MixDetError(
                f"cannot write {self.path}: the disk is full, or this OpenCV has no encoder for "
                "mp4v: free some space or install another build of OpenCV"
            )
        return writer


def mpeg4_rate(rate: float) -> float:
    """Return the nearest frame rate, with up to three decimals, that MPEG-4 can hold.

    MPEG-4 holds the rate as a fraction with a numerator of at most 65,535. For example, it cannot
    hold 211.222 (105,611 / 500), so the result is 211.22.
    """
    rate = min(max(rate, 0.002), MPEG4_MAX_RATE)  # OpenCV takes a lower rate for zero
    candidates = (Fraction(round(rate * 10**digits), 10**digits) for digits in (3, 2, 1, 0))
    return float(next(value for value in candidates if value.numerator <= MPEG4_MAX_RATE))


def _fit(image: np.ndarray) -> np.ndarray:
    """Reduce an image to the largest size of MPEG-4, and repeat its edge to get even sides."""
    scale = MPEG4_MAX_SIDE / max(image.shape[:2])
    if scale < 1:
        size = [max(1, round(side * scale)) for side in image.shape[1::-1]]
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    return np.pad(image, ((0, image.shape[0] % 2), (0, image.shape[1] % 2), (0, 0)), "edge")
