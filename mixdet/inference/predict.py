"""Run a detector over files, a video or a camera, and write images and one JSON.

The JSON is a list with an entry an image: `file`, `boxes` (x1, y1, x2, y2 in pixels), `scores`,
`labels` and `names`; an entry of a video or a camera has `frame`, counted from 0, too.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Iterator
from itertools import count, islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image
from tqdm import tqdm

from mixdet.errors import MixDetError
from mixdet.images import as_rgb
from mixdet.inference import Detector
from mixdet.outputs import writable_folder
from mixdet.visual.boxes import draw_detections

IMAGES = {".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"}
VIDEOS = {".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm"}


def predict_files(
    detector: Detector,
    inputs: Iterable[str | os.PathLike],
    out: str | os.PathLike,
    *,
    score_thr: float = 0.3,
    batch_size: int = 8,
) -> list[dict[str, Any]]:
    """Detect in images, folders of images and videos; draw what is found.

    Args:
        detector: The detector.
        inputs: Files and folders, which are searched with their subfolders.
        out: Folder for the drawn images, the annotated videos and `predictions.json`.
        score_thr: Detections below it are left out.
        batch_size: Images computed at a time.

    Returns:
        What the JSON holds.

    Raises:
        MixDetError: An input is missing or would be overwritten, or the folder cannot be written;
            or, once the others are done and in the JSON, one could not be read.
    """
    out = Path(out)
    pairs = find_inputs(inputs, out)
    writable_folder("--out", out)
    images = [pair for pair in pairs if pair[0].suffix.lower() not in VIDEOS]
    videos = [pair for pair in pairs if pair[0].suffix.lower() in VIDEOS]
    entries, faults = [], []
    for batch in _batches(_readable(images, faults), batch_size):
        arrays = [array for *_, array in batch]
        found = detector(arrays, score_thr=score_thr, batch_size=batch_size)
        for (source, target, image), detections in zip(batch, found, strict=True):
            entries.append({"file": str(source), **detections.as_dict()})
            target.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(_drawn(image, detections)).save(target, quality=92)
    for source, target in videos:
        try:
            entries += predict_video(
                detector, source, target, score_thr=score_thr, batch_size=batch_size
            )
        except MixDetError as error:
            faults.append(str(error))
    path = write_json(entries, out)
    if faults:
        done = f" (the other {len(pairs) - len(faults)} inputs are done: {path})"
        raise MixDetError("; ".join(faults) + (done if entries else ""))
    return entries


def predict_video(
    detector: Detector,
    source: str | os.PathLike | int,
    target: str | os.PathLike,
    *,
    score_thr: float = 0.3,
    batch_size: int = 8,
    frames: int | None = None,
) -> list[dict[str, Any]]:
    """Detect in every frame and write an annotated video at the source's frame rate.

    A camera is read until Ctrl-C or `frames`, a frame at a time.

    Args:
        detector: The detector.
        source: A video file, or the number of a camera.
        target: The video to write (`.mp4`).
        score_thr: Detections below it are left out.
        batch_size: Frames computed at a time.
        frames: Stop after so many.

    Returns:
        One entry a frame, as in the JSON.

    Raises:
        MixDetError: The video or the camera cannot be read, or the target not written.
    """
    live = isinstance(source, int)
    name = f"camera {source}" if live else str(source)
    capture = cv2.VideoCapture(source if live else str(source))
    writer, entries = None, []
    try:
        rate = capture.get(cv2.CAP_PROP_FPS) if capture.isOpened() else 0
        rate = rate if math.isfinite(rate) and rate > 0 else 25.0
        total = max(0, int(capture.get(cv2.CAP_PROP_FRAME_COUNT))) or None
        stream = islice(_frames(capture), frames)
        with tqdm(total=frames or total, unit="frame", desc=Path(name).name, smoothing=0) as bar:
            for batch in _batches(stream, 1 if live else batch_size):
                for image, detections in zip(
                    batch, detector(batch, score_thr=score_thr), strict=True
                ):
                    entries.append({"file": name, "frame": len(entries), **detections.as_dict()})
                    drawn = _drawn(image, detections)
                    writer = writer or _writer(Path(target), rate, drawn.shape)
                    writer.write(np.ascontiguousarray(drawn[..., ::-1]))
                    bar.update()
    except KeyboardInterrupt:
        if not live:
            raise
    finally:
        capture.release()
        if writer:
            writer.release()
    if not entries:
        remedy = "is it connected and free?" if live else "damaged, or another kind of file"
        raise MixDetError(f"cannot read a frame of {name}: {remedy}")
    return entries


def write_json(entries: list[dict[str, Any]], out: str | os.PathLike) -> Path:
    """Write `predictions.json` into a folder."""
    path = Path(out) / "predictions.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(entries, indent=1))
    return path


def find_inputs(inputs: Iterable[str | os.PathLike], out: Path) -> list[tuple[Path, Path]]:
    """The files among the inputs and in their folders, each with the file to write for it.

    A folder's files keep their places below it. Two inputs of one name get `_2` and so on.

    Raises:
        MixDetError: An input is missing or would be overwritten, or a folder holds none.
    """
    pairs: dict[Path, Path] = {}
    for given in map(Path, inputs):
        for file in _files(given, out):
            place = file.relative_to(given) if given.is_dir() else Path(file.name)
            wanted = target = out / place.with_suffix(_suffix(file.suffix.lower()))
            for number in count(2):
                if target not in pairs:
                    break
                target = wanted.with_stem(f"{wanted.stem}_{number}")
            pairs[target] = file
    sources = {file.resolve() for file in pairs.values()}
    for target in pairs:  # also by the result of another input, before it was read
        if target.resolve() in sources:
            raise MixDetError(f"{target} would be overwritten: choose another --out")
    return [(source, target) for target, source in pairs.items()]


def _files(given: Path, out: Path) -> list[Path]:
    if given.is_dir():
        home, drawn = given.resolve(), out.resolve()
        if drawn == home:
            raise MixDetError(f"--out {out} is an input folder: choose another, or one inside it")
        # What an earlier run drew below the folder is no input
        below = given / drawn.relative_to(home) if drawn.is_relative_to(home) else None
        files = [
            file
            for file in sorted(given.rglob("*"))
            if file.suffix.lower() in IMAGES | VIDEOS and below not in file.parents
        ]
        if not files:
            raise MixDetError(f"{given} holds neither images nor videos")
        return files
    if not given.exists():
        raise MixDetError(f"{given}: no such file or folder")
    return [given]


def _readable(
    images: list[tuple[Path, Path]], faults: list[str]
) -> Iterator[tuple[Path, Path, np.ndarray]]:
    """Those that can be read, with their pixels; what is wrong with the others, to `faults`."""
    for source, target in tqdm(images, unit="img", smoothing=0, disable=not images):
        try:
            image = as_rgb(source)
        except MixDetError as error:
            faults.append(str(error))
        else:
            yield source, target, image


def _suffix(suffix: str) -> str:
    """Of the file to write: images keep a suffix that every viewer opens."""
    if suffix in VIDEOS:
        return ".mp4"
    return suffix if suffix in (".bmp", ".jpeg", ".jpg", ".png", ".webp") else ".png"


def _batches(items: Iterable, size: int) -> Iterator[list]:
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch


def _frames(capture: cv2.VideoCapture) -> Iterator[np.ndarray]:
    while True:
        read, bgr = capture.read()
        if not read:
            return
        yield np.ascontiguousarray(bgr[..., ::-1])


def _writer(target: Path, rate: float, shape: tuple[int, ...]) -> cv2.VideoWriter:
    writable_folder("--out", target.parent)
    codec = cv2.VideoWriter.fourcc(*"mp4v")
    writer = cv2.VideoWriter(str(target), codec, rate, (shape[1], shape[0]))
    if not writer.isOpened():
        raise MixDetError(f"cannot write {target}: OpenCV has no encoder for it here")
    return writer


def _drawn(image: np.ndarray, detections: Any) -> np.ndarray:
    return draw_detections(
        image, detections.boxes, detections.scores, detections.labels, detections.names
    )
