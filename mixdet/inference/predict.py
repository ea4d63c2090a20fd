"""Run a detector on images, videos or a camera. Draw the boxes, and write a JSON file.

The JSON is a list with one entry for each image or frame: `file`, `boxes` (x1, y1, x2, y2 in
pixels), `scores`, `labels` and `names`. The entry of a frame also has `frame`, counted from 0.
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

IMAGE_SUFFIXES = {".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"}
VIDEO_SUFFIXES = {".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm"}


def predict_files(
    detector: Detector,
    inputs: Iterable[str | os.PathLike],
    out: str | os.PathLike,
    *,
    score_thr: float = 0.3,
    batch_size: int = 8,
) -> list[dict[str, Any]]:
    """Detect in images, videos and folders, draw the detections, and write `predictions.json`.

    Args:
        detector: The detector.
        inputs: Files and folders. Folders are searched with their subfolders.
        out: Folder for the drawn images, the drawn videos and `predictions.json`.
        score_thr: Leave out detections with a lower score.
        batch_size: Number of images computed at a time.

    Returns:
        The content of the JSON.

    Raises:
        MixDetError: An input is missing or would be overwritten, or the folder cannot be written.
            If an input cannot be read, the error is raised after the results of all other inputs
            were written.
    """
    out = Path(out)
    pairs = find_inputs(inputs, out)
    writable_folder("--out", out)
    images = [pair for pair in pairs if pair[0].suffix.lower() not in VIDEO_SUFFIXES]
    videos = [pair for pair in pairs if pair[0].suffix.lower() in VIDEO_SUFFIXES]
    entries, faults = [], []
    for batch in _batches(_read_images(images, faults), batch_size):
        arrays = [array for *_, array in batch]
        results = detector(arrays, score_thr=score_thr, batch_size=batch_size)
        for (source, target, image), detections in zip(batch, results, strict=True):
            entries.append({"file": str(source), **detections.as_dict()})
            target.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(_draw(image, detections)).save(target, quality=92)
    for source, target in videos:
        try:
            entries += predict_video(
                detector, source, target, score_thr=score_thr, batch_size=batch_size
            )
        except MixDetError as error:
            faults.append(str(error))
    path = write_json(entries, out)
    if faults:
        done = f" (the results of the other {len(pairs) - len(faults)} inputs are in {path})"
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
    """Detect in every frame, and write a video with the boxes, at the frame rate of the source.

    A camera is read one frame at a time, until Ctrl-C or until `frames` are read.

    Args:
        detector: The detector.
        source: A video file, or the number of a camera.
        target: The video to write (`.mp4`).
        score_thr: Leave out detections with a lower score.
        batch_size: Number of frames of a video computed at a time.
        frames: Stop after this many frames.

    Returns:
        One entry for each frame, as in the JSON.

    Raises:
        MixDetError: The video or the camera cannot be read, or the target cannot be written.
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
                    drawn = _draw(image, detections)
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
        reason = (
            "connect it, and close other programs that use it"
            if live
            else "the file is damaged, or it is not a video"
        )
        raise MixDetError(f"cannot read a frame of {name}: {reason}")
    return entries


def write_json(entries: list[dict[str, Any]], out: str | os.PathLike) -> Path:
    """Write `predictions.json` into a folder."""
    path = Path(out) / "predictions.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(entries, indent=1))
    return path


def find_inputs(inputs: Iterable[str | os.PathLike], out: Path) -> list[tuple[Path, Path]]:
    """List the input files, including the files in folders, and the file to write for each one.

    The results of a folder keep the relative paths of its files. If two results would have the same
    path, the second one gets `_2` at the end of its name, the third one `_3`, and so on.

    Returns:
        Pairs of an input file and the file to write.

    Raises:
        MixDetError: An input is missing or would be overwritten, or a folder has no images and no
            videos.
    """
    sources: dict[Path, Path] = {}  # maps each file to write to its input file
    for path in map(Path, inputs):
        for source in _list_files(path, out):
            name = source.relative_to(path) if path.is_dir() else Path(source.name)
            first = target = out / name.with_suffix(_output_suffix(source.suffix.lower()))
            for number in count(2):
                if target not in sources:
                    break
                target = first.with_stem(f"{first.stem}_{number}")
            sources[target] = source
    inputs_on_disk = {source.resolve() for source in sources.values()}
    for target in sources:
        if target.resolve() in inputs_on_disk:
            raise MixDetError(f"{target} would be overwritten: choose another --out")
    return [(source, target) for target, source in sources.items()]


def _list_files(path: Path, out: Path) -> list[Path]:
    """Return the file itself, or the images and videos in a folder, except those in `out`."""
    if path.is_dir():
        folder, out_folder = path.resolve(), out.resolve()
        if out_folder == folder:
            raise MixDetError(f"--out {out} is an input folder: choose another or a subfolder")
        out_is_inside = out_folder.is_relative_to(folder)
        # `out` can hold the results of an earlier run, which must not become inputs
        ignored = path / out_folder.relative_to(folder) if out_is_inside else None
        files = [
            file
            for file in sorted(path.rglob("*"))
            if file.suffix.lower() in IMAGE_SUFFIXES | VIDEO_SUFFIXES
            and ignored not in file.parents
        ]
        if not files:
            raise MixDetError(f"{path} holds neither images nor videos: name another folder")
        return files
    if not path.exists():
        raise MixDetError(f"{path}: no such file or folder")
    return [path]


def _read_images(
    images: list[tuple[Path, Path]], faults: list[str]
) -> Iterator[tuple[Path, Path, np.ndarray]]:
    """Read image files one by one; skip an unreadable file, and add its error to `faults`."""
    for source, target in tqdm(images, unit="img", smoothing=0, disable=not images):
        try:
            image = as_rgb(source)
        except MixDetError as error:
            faults.append(str(error))
        else:
            yield source, target, image


def _output_suffix(suffix: str) -> str:
    """Return the suffix of the file to write: PNG for a format that few viewers can open."""
    if suffix in VIDEO_SUFFIXES:
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
        raise MixDetError(
            f"cannot write {target}: this OpenCV has no encoder for mp4v: install another build of "
            "OpenCV"
        )
    return writer


def _draw(image: np.ndarray, detections: Any) -> np.ndarray:
    return draw_detections(
        image, detections.boxes, detections.scores, detections.labels, detections.names
    )
