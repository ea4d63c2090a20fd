"""Read the frames of videos and cameras, and write videos, with OpenCV."""

from __future__ import annotations

import os
from collections.abc import Iterator
from fractions import Fraction
from itertools import islice
from pathlib import Path

import cv2
import numpy as np

from mixdet.errors import MixDetError
from mixdet.inference.container_chains import CUT, HOLE
from mixdet.inference.containers import CHECKS, container_kind, find_damage
from mixdet.inference.edit_lists import mp4_edited_seconds
from mixdet.inference.inputs import is_utf8
from mixdet.inference.results import DiskError, write_error
from mixdet.outputs import writable_folder

# Limits of MPEG-4 video: the side of a frame, and the numerator of the frame rate as a fraction
MPEG4_MAX_SIDE = 8190
MPEG4_MAX_RATE = 65535
DEFAULT_RATE = 25.0  # of a video or a camera that states no frame rate
# A file without a frame rate often states the rate of its clock instead, such as 1000 or 90,000
MAX_PLAUSIBLE_RATE = 240.0
# If the file states no frame rate, the times of this many frames give it. These frames are read
# before the first one is returned, so the rate does not depend on how many frames a caller takes
MEASURED_FRAMES = 10
# If a file with one of these containers is cut, FFmpeg states the length of the part that is left
LENGTH_OF_REST = ("asf", "fragments", "mpegps", "mpegts", "ogg")


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
            # FFmpeg would take `clip:1.mp4` for an address, so it gets the absolute path
            path = Path(self.name).absolute()
            self._path = path if path.is_file() else None
            self._capture = cv2.VideoCapture(str(path))
        self.read = 0
        self._times: list[float] = []  # position of each frame in the video, in seconds
        opened = self._capture.isOpened()
        self._rate = self._capture.get(cv2.CAP_PROP_FPS) if opened else 0.0
        total = self._capture.get(cv2.CAP_PROP_FRAME_COUNT) if opened else 0.0
        self._seconds = total / self._rate if 0 < total < 2**40 and self._rate > 0 else 0.0
        # If the stated rate is the rate of a clock, OpenCV mostly counts its ticks, not the frames
        is_stated = self._seconds > 0 and not self.live
        is_count = self._states_rate() or (is_stated and self._kind() in ("avi", "mp4"))
        self.total = int(total) if is_stated and is_count else None

    def frames(self) -> Iterator[np.ndarray]:
        """Yield the frames, (H, W, 3) uint8 RGB."""
        frames = self._read_frames()
        if not (self.live or self._states_rate()):
            yield from list(islice(frames, MEASURED_FRAMES))
        yield from frames

    def _read_frames(self) -> Iterator[np.ndarray]:
        while True:
            read, bgr = self._capture.read()
            if not read:
                return
            self.read += 1
            self._times.append(self._capture.get(cv2.CAP_PROP_POS_MSEC) / 1000)
            yield np.ascontiguousarray(bgr[..., ::-1])

    def _kind(self) -> str | None:
        return container_kind(self._path) if self._path else None

    def _states_rate(self) -> bool:
        return 0 < self._rate <= MAX_PLAUSIBLE_RATE  # false for NaN

    @property
    def rate(self) -> float:
        """Frames per second: as the file states, or else as the times of the first frames give."""
        if self._states_rate():
            return self._rate
        times = self._times[:MEASURED_FRAMES]
        seconds = times[-1] - times[0] if times else 0
        return (len(times) - 1) / seconds if seconds > 0 else DEFAULT_RATE

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
            total = self._stated_frames()
            of_total = f" of {total}" if total > self.read else ""
            return (
                f"{self.name} is damaged or cut short: only {self.read}{of_total} frames could be "
                "read: copy the file again"
            )
        return None

    def _stated_frames(self) -> int:
        """Return the number of frames that the file states or its length implies, or else 0."""
        if self.total is not None:
            return self.total
        return round(self._seconds * self.rate)

    def _lacks_frames(self) -> bool:
        """Tell whether frames are missing because the file is damaged or cut short.

        The number of frames that OpenCV reports is not exact. For many formats, OpenCV computes it
        from the frame rate, which can vary, and the length of the longest track. This track can be
        the sound. So the file counts as damaged only if its structure is broken as well.
        """
        if self._path is None:
            return False
        missing = self._stated_frames() - self.read
        kind = self._kind()
        if kind in CHECKS:
            damage = find_damage(self._path, kind)
            if damage == CUT:
                return missing > 0 or kind in LENGTH_OF_REST
            return damage == HOLE and (missing > 0 or self._has_gap() or kind == "fragments")
        if kind != "mp4" or missing <= 0:
            return False
        edited = mp4_edited_seconds(self._path)
        if edited > self._seconds - 0.5 / self._rate and missing > 2:
            return True  # the edit list does not explain the missing frames
        gap = max(np.diff(self._times).max(initial=0), 1 / self._rate)
        return self._times[-1] + 2.5 * gap < min(self._seconds, edited)

    def _has_gap(self) -> bool:
        """Tell whether the time between two frames is more than 1.5 times the median."""
        gaps = np.diff(self._times)
        return len(gaps) > 0 and gaps.max() > 1.5 * np.median(gaps)

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
