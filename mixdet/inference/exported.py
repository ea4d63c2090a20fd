"""Run an exported folder with NumPy, OpenCV and one runtime, without torch or mmdet."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from mixdet.errors import MixDetError, one_line
from mixdet.inference.manifest import (
    MANIFEST,
    check_files,
    check_metadata,
    read_manifest,
    usable_runtimes,
)
from mixdet.inference.runtimes import RUNTIME_FILES, RUNTIME_PACKAGES, Run, load


class ExportedFile:
    """A network file of an exported folder, loaded by its runtime.

    Pre- and post-processing follow the manifest, `mixdet.json`.

    Args:
        manifest: The content of `mixdet.json`.
        runtime: A key of `mixdet.inference.runtimes.RUNTIME_FILES`.
        folder: The folder of the file.
        threads: As for `mixdet.inference.Detector`.

    Raises:
        MixDetError: The runtime cannot read the file or set threads, or the input of the file has
            another size than the manifest states.
    """

    def __init__(
        self, manifest: dict[str, Any], runtime: str, folder: Path, threads: int | None = None
    ) -> None:
        self.manifest, self.runtime = manifest, runtime
        model = folder / RUNTIME_FILES[runtime][0]
        try:
            self._loaded = load(runtime, model, manifest.get("precision", "fp32"), threads)
        except MixDetError:
            raise
        except Exception as error:  # a runtime can raise any error
            raise MixDetError(
                f"{RUNTIME_PACKAGES[runtime]} cannot read {model} as a network "
                f"({one_line(error)}): export again"
            ) from error
        expected = manifest["input"]["height"], manifest["input"]["width"], 3
        shape = self._loaded.shape
        if shape is not None and tuple(shape[1:]) != expected:
            raise MixDetError(
                f"{folder / MANIFEST} states an input of {expected}, but {model.name} takes "
                f"{tuple(shape[1:])}: export again"
            )
        check_metadata(folder, model.name, manifest, self._loaded.metadata)

    def __call__(self, images: Sequence[np.ndarray]) -> list[tuple[np.ndarray, ...]]:
        """Detect objects in RGB images (H, W, 3).

        Returns:
            For each image: boxes (n, 4) as (x1, y1, x2, y2) in pixels of the image, scores (n,) and
            labels (n,).
        """
        if len(images) > 1 and self._loaded.streams > 1:
            run = self._loaded.stream()  # not in the threads, which would all load the network
            with ThreadPoolExecutor(min(self._loaded.streams, len(images))) as pool:
                found = pool.map(lambda image: self._detect([image], run), images)
                return [detections for [detections] in found]
        return self._detect(images, self._loaded.run)

    def _detect(self, images: Sequence[np.ndarray], run: Run) -> list[tuple[np.ndarray, ...]]:
        inputs = network_input(images, self.manifest)
        input_wh = inputs.shape[2:0:-1]
        scales = [
            np.divide(input_wh * 2, image.shape[1::-1] * 2, dtype=np.float32) for image in images
        ]
        if self.manifest["kind"] == "raw":
            return [
                suppress(*outputs, scale, self.manifest)
                for outputs, scale in zip(self.raw_outputs(inputs, run), scales, strict=True)
            ]
        detections = []
        post = self.manifest["postprocess"]
        for boxes, scores, labels, scale in zip(*run(inputs), scales, strict=True):
            # The network pads its outputs with the label -1. It applies the limits of the export.
            # A user may have written stricter limits into the manifest (see `check_metadata`)
            valid = np.flatnonzero((labels >= 0) & (scores > post["score_thr"]))
            valid = valid[: post["max_per_img"]]
            detections.append((boxes[valid] / scale, scores[valid], labels[valid]))
        return detections

    def raw_outputs(
        self, inputs: np.ndarray, run: Run | None = None
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Compute the outputs of a file of kind raw: boxes and scores before NMS.

        Args:
            inputs: (N, H, W, 3) uint8, as `network_input` returns them.
            run: Computes the outputs, by default all threads together.

        Yields:
            Boxes (A, 4) and scores (A, classes) of each image.
        """
        run = run or self._loaded.run
        start, batch = 0, self._loaded.batch
        while start < len(inputs):
            end = start + (batch if start + batch <= len(inputs) else 1)
            boxes, scores = run(inputs[start:end])
            expected = sum(level["anchors"] for level in self.manifest["levels"])
            expected = expected, len(self.manifest["classes"])
            if scores.shape[1:] != expected:
                raise MixDetError(
                    f"{MANIFEST} has {expected[0]} anchors in levels and {expected[1]} names in "
                    f"classes, but the network computes scores of {scores.shape[1:]}: restore the "
                    "exported values (a class may be renamed, but not left out)"
                )
            yield from zip(boxes, scores, strict=True)
            start = end


class ExportedNetwork(ExportedFile):
    """The network in a folder that `tools/export.py` wrote, on one of the folder's runtimes.

    Attributes:
        manifest: The content of `mixdet.json`.
        runtime: The runtime that computes, a key of `mixdet.inference.runtimes.RUNTIME_FILES`.
        classes: Class names, indexed by label.

    Args:
        folder: The folder.
        runtime: The runtime to use. None takes the first one in `RUNTIME_FILES` that has a file in
            the folder and is installed.
        threads: As for `mixdet.inference.Detector`.

    Raises:
        MixDetError: A file is missing, damaged or changed, no runtime for the files is installed,
            or the runtime cannot set threads.
    """

    def __init__(
        self,
        folder: str | os.PathLike,
        runtime: str | None = None,
        threads: int | None = None,
    ) -> None:
        folder = Path(folder)
        manifest = read_manifest(folder)
        runtime = usable_runtimes(folder, manifest, runtime)[0]
        check_files(folder, manifest, runtime)
        super().__init__(manifest, runtime, folder, threads)
        self.classes = tuple(manifest["classes"])
        self._arguments = folder.absolute(), runtime, threads

    def __reduce__(self) -> tuple:
        """Pickle the arguments: a copy in another process loads the files again."""
        return type(self), self._arguments


def network_input(images: Sequence[np.ndarray], manifest: dict[str, Any]) -> np.ndarray:
    """Resize RGB images (H, W, 3) to the network's input, (N, height, width, 3) uint8."""
    input_wh = manifest["input"]["width"], manifest["input"]["height"]
    inputs = np.stack([cv2.resize(image, input_wh) for image in images])  # bilinear
    if manifest["input"]["channels"] == "BGR":
        return np.ascontiguousarray(inputs[..., ::-1])
    return inputs


def suppress(
    boxes: np.ndarray, scores: np.ndarray, scale: np.ndarray, manifest: dict[str, Any]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Turn raw outputs into detections, as mmdet's heads do.

    A candidate is a pair of an anchor and a class with a score above `score_thr`. Each level keeps
    its `nms_pre` best candidates. Non-maximum suppression (NMS) removes duplicates within each
    class. The `max_per_img` best remaining candidates are the detections.

    Args:
        boxes: (A, 4), (x1, y1, x2, y2) in pixels of the network's input.
        scores: (A, classes).
        scale: (4,), for x1, y1, x2 and y2: pixels of the network's input per pixel of the image.
        manifest: The content of `mixdet.json`. Only `levels` and `postprocess` are read.

    Returns:
        Boxes (n, 4) in pixels of the image, scores (n,), descending, and labels (n,) int64.
    """
    post = manifest["postprocess"]
    candidates = []  # indices into the flattened scores
    start = 0
    for level in manifest["levels"]:
        level_scores = scores[start : start + level["anchors"]].ravel()
        pairs = np.flatnonzero(level_scores > post["score_thr"])
        if 0 < post["nms_pre"] < len(pairs):
            best = np.argpartition(-level_scores[pairs], post["nms_pre"] - 1)[: post["nms_pre"]]
            pairs = pairs[best]
        candidates.append(pairs + start * scores.shape[1])
        start += level["anchors"]
    anchors, labels = np.divmod(np.concatenate(candidates), scores.shape[1])
    boxes, scores = boxes[anchors] / scale, scores[anchors, labels]
    sizes = boxes[:, 2:] - boxes[:, :2]
    large = (sizes > post["min_bbox_size"]).all(1)
    boxes, scores, labels, sizes = boxes[large], scores[large], labels[large], sizes[large]
    keep = np.zeros(0, int)
    if len(boxes):  # OpenCV takes (x, y, width, height). 0.0 turns off its own score threshold
        xywh = np.hstack([boxes[:, :2], sizes]).astype(float)
        keep = cv2.dnn.NMSBoxesBatched(xywh, scores, labels.astype(np.int32), 0.0, post["iou_thr"])
        keep = np.asarray(keep, int).ravel()
    keep = keep[np.argsort(-scores[keep], kind="stable")][: post["max_per_img"]]
    return boxes[keep], scores[keep], labels[keep]
