"""Run a detector on images, videos or a camera. Write drawings of the boxes, and JSON files.

`predictions.jsonl` gets a line with an entry for each image or frame as soon as it is done.
`predictions.json` is the list of all entries, and is written at the end. An entry has `file`,
`boxes` (x1, y1, x2, y2 in pixels), `scores`, `labels` and `names`. An entry of a video or a camera
also has `frame`, counted from 0.

An exported folder needs only NumPy, OpenCV and its runtime. Without tqdm no progress is shown.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from mixdet.errors import MixDetError
from mixdet.images import as_rgb
from mixdet.inference.detector import Detections, Detector
from mixdet.inference.drawings import draw, writable_path, write_image
from mixdet.inference.inputs import InputFiles, describe, find_inputs
from mixdet.inference.results import DiskError, ResultFiles, result_files
from mixdet.inference.videos import VideoReader, VideoWriter
from mixdet.inference.work_ahead import map_ahead, thread_pool

MAX_LISTED_FAULTS = 5  # largest number of faults that the message at the end of a run lists


def predict_files(
    detector: Detector,
    inputs: Iterable[str | os.PathLike | int],
    out: str | os.PathLike,
    *,
    score_thr: float = 0.3,
    batch_size: int = 8,
    frames: int | None = None,
) -> list[dict[str, Any]]:
    """Detect objects in images, videos and cameras, draw the detections, and write JSON files.

    Args:
        detector: The detector.
        inputs: Files, folders and numbers of cameras. A search of a folder includes its subfolders
            and linked folders.
        out: Folder for the drawn images, the drawn videos and the JSON files.
        score_thr: Leave out detections with a lower score.
        batch_size: Number of images computed at a time.
        frames: Stop a camera after this many frames.

    Returns:
        The content of `predictions.json`.

    Raises:
        MixDetError: An input is missing or would be overwritten, or the folder cannot be written.
            If an input cannot be read to its end, or its drawing cannot be written, the error is
            raised after the other inputs are done. If the disk or the memory is full, the run ends
            at once. The message names the file with the results so far.
        KeyboardInterrupt: Ctrl-C, except while a camera is read. The message names the file with
            the results so far.
    """
    input_files = find_inputs(inputs, out)
    if input_files.passed_over:
        print(f"neither images nor videos: {describe(input_files.passed_over)}", file=sys.stderr)
    faults = input_files.faults
    options = dict(score_thr=score_thr, batch_size=batch_size)
    with result_files(out) as results:
        _predict_images(detector, input_files, results, faults, **options)
        for source, target in input_files.videos:
            limit = frames if isinstance(source, int) else None
            with _noted(faults):
                predict_video(detector, source, target, frames=limit, record=results.add, **options)
        if faults:
            more = len(faults) - MAX_LISTED_FAULTS
            listed = "; ".join(faults[:MAX_LISTED_FAULTS])
            raise MixDetError(listed + (f"; and {more:,} more faults" if more > 0 else ""))
    return results.entries


def _predict_images(
    detector: Detector,
    input_files: InputFiles,
    results: ResultFiles,
    faults: list[str],
    **options: Any,
) -> None:
    """Predict on the images, and write their drawings.

    The network computes in this thread. Meanwhile other threads read the next images and draw the
    previous ones. So up to four batches of images are in memory.
    """
    images, batch_size = input_files.images, options["batch_size"]
    taken = {target for _, target in images + input_files.videos}

    def readable(contents: Iterable[np.ndarray | MixDetError]) -> Iterator[tuple]:
        """Yield each image that could be read, with its file and the file for its drawing."""
        for (source, target), image in zip(images, contents, strict=True):
            if isinstance(image, MixDetError):
                faults.append(str(image))
            else:
                yield source, writable_path(target, image, taken), image
            bar.update()

    def detect(contents: Iterable[np.ndarray | MixDetError]) -> Iterator[tuple]:
        """Yield each image, its detections and the file for its drawing."""
        for batch in _batches(readable(contents), batch_size):
            detected = detector([image for *_, image in batch], **options)
            for (source, target, image), detections in zip(batch, detected, strict=True):
                results.add({"file": str(source), **detections.as_dict()})
                yield image, detections, target

    with (
        _progress(len(images), "img") as bar,
        thread_pool() as pool,
        map_ahead(pool, _read, (source for source, _ in images), batch_size) as contents,
        map_ahead(pool, _write_drawing, detect(contents), batch_size, cancel=False) as written,
    ):
        faults.extend(fault for fault in written if fault)


def _read(path: Path) -> np.ndarray | MixDetError:
    """Return an image, or the error if it cannot be read."""
    try:
        return as_rgb(path)
    except MixDetError as error:
        return error


def _write_drawing(result: tuple[np.ndarray, Detections, Path]) -> str | None:
    """Draw detections on an image, and write it. Return the fault if it cannot be written."""
    image, detections, path = result
    faults: list[str] = []
    with _noted(faults):
        write_image(draw(image, detections), path)
    return faults[0] if faults else None


def predict_video(
    detector: Detector,
    source: str | os.PathLike | int,
    target: str | os.PathLike,
    *,
    score_thr: float = 0.3,
    batch_size: int = 8,
    frames: int | None = None,
    record: Callable[[dict[str, Any]], None] | None = None,
) -> list[dict[str, Any]]:
    """Detect objects in every frame, and write the frames with boxes to a video of the same rate.

    A camera is read one frame at a time, until Ctrl-C or until `frames` are read.

    Args:
        detector: The detector.
        source: A video file, the address of a stream, or the number of a camera.
        target: The video to write (`.mp4`).
        score_thr: Leave out detections with a lower score.
        batch_size: Number of frames of a video computed at a time.
        frames: Stop after this many frames.
        record: A function that is called with each entry as soon as the frame is done.

    Returns:
        One entry for each frame, as in the JSON files.

    Raises:
        MixDetError: The video or the camera cannot be read, the video has fewer frames than it
            states, or the target cannot be written. The error is raised after all readable frames
            are done.
    """
    reader, writer = VideoReader(source), VideoWriter(target)
    entries: list[dict[str, Any]] = []
    try:
        stream = islice(reader.frames(), frames)
        total = frames or reader.total
        with _progress(total, "frame", Path(reader.name).name) as bar:
            for batch in _batches(stream, 1 if reader.live else batch_size):
                detected = detector(batch, score_thr=score_thr, batch_size=batch_size)
                for image, detections in zip(batch, detected, strict=True):
                    entry = {"file": reader.name, "frame": len(entries), **detections.as_dict()}
                    entries.append(entry)
                    if record:
                        record(entry)
                    writer.write(draw(image, detections), reader.rate)
                    bar.update()
    except KeyboardInterrupt:
        if not reader.live:
            raise
    finally:
        reader.close()
        writer.close()
    limited = frames is not None and len(entries) == frames
    faults = [fault for fault in (not limited and reader.fault(), writer.fault()) if fault]
    if faults:
        raise MixDetError("; ".join(faults))
    return entries


@contextmanager
def _noted(faults: list[str]) -> Iterator[None]:
    """Add the error of an input to the list, and go on. Only a full disk ends the run."""
    try:
        yield
    except DiskError:
        raise
    except MixDetError as error:
        faults.append(str(error))


def _batches(items: Iterable, size: int) -> Iterator[list]:
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch


def _progress(total: int | None, unit: str, name: str | None = None) -> Any:
    """Return a progress bar of tqdm. If tqdm is not installed, the bar shows nothing."""
    try:
        from tqdm import tqdm
    except ModuleNotFoundError:
        return _NoBar()
    return tqdm(total=total, unit=unit, desc=name, smoothing=0, disable=total == 0)


class _NoBar:
    """A progress bar that shows nothing."""

    def __enter__(self) -> _NoBar:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def update(self) -> None:
        """Count one more."""
