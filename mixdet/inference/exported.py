"""Running an exported folder with NumPy, OpenCV and one runtime: neither torch nor mmdet."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from mixdet.errors import MixDetError, one_line
from mixdet.inference.runtimes import FILES, PACKAGES, load

MANIFEST = "mixdet.json"
UNVERIFIED = "unverified_"  # how folders begin in which files lie until they are compared
FORMAT = 1


def _text(value: Any) -> bool:
    return isinstance(value, str)


def _between(low: float, high: float, kinds: type | tuple = int) -> Callable[[Any], bool]:
    """Whether a value is a number from `low` to `high`, which NaN is not."""
    return lambda value: (
        isinstance(value, kinds) and not isinstance(value, bool) and low <= value <= high
    )


# What is read of the manifest, and which values may stand there
_whole, _number = _between(-1, 2**31), _between(-(2**31), 2**31, (int, float))
LAYOUT = {
    "kind": lambda value: value in ("raw", "end2end"),
    "input": {
        "width": _between(1, 2**15),
        "height": _between(1, 2**15),
        "channels": lambda value: value in ("RGB", "BGR"),
    },
    "classes": [_text],
    "levels": [{"anchors": _between(0, 2**31)}],
    "postprocess": {
        "score_thr": _number,
        "iou_thr": _between(0, 1, (int, float)),
        "nms_pre": _whole,
        "max_per_img": _whole,
        "min_bbox_size": _number,
    },
    "files": lambda value: isinstance(value, dict) and all(map(_text, value.values())),
}


class ExportedFile:
    """A file on its runtime, with what is in the manifest done before and after it.

    Args:
        manifest: What `mixdet.json` holds, or will hold.
        runtime: One of `mixdet.inference.runtimes.FILES`.
        folder: Where its file lies.

    Raises:
        MixDetError: The runtime cannot read the file, or its input is not the manifest's.
    """

    def __init__(
        self, manifest: dict[str, Any], runtime: str, folder: Path, threads: int | None = None
    ) -> None:
        self.manifest, self.runtime = manifest, runtime
        model = folder / FILES[runtime][0]
        try:
            self._loaded = load(runtime, model, manifest.get("precision", "fp32"), threads)
        except Exception as error:  # runtimes raise what they like
            raise MixDetError(
                f"{model} is no network that {PACKAGES[runtime]} reads ({one_line(error)}): "
                "export again"
            ) from error
        stated = manifest["input"]["height"], manifest["input"]["width"], 3
        shape = self._loaded.shape
        if shape is not None and tuple(shape[1:]) != stated:
            raise MixDetError(
                f"{folder / MANIFEST} states an input of {stated}, and {model.name} takes "
                f"{tuple(shape[1:])}: export again"
            )
        self._lock = threading.Lock()  # runtimes keep inputs and outputs between calls

    def __call__(self, images: Sequence[np.ndarray]) -> list[tuple[np.ndarray, ...]]:
        """Boxes (n, 4), scores (n,) and labels (n,) in each RGB image (H, W, 3)."""
        inputs = network_input(images, self.manifest)
        size = inputs.shape[2:0:-1]
        scales = [
            np.divide((*size, *size), (*image.shape[1::-1], *image.shape[1::-1]), dtype=np.float32)
            for image in images
        ]
        if self.manifest["kind"] == "raw":
            return [
                suppress(*outputs, scale, self.manifest)
                for outputs, scale in zip(self.raw_outputs(inputs), scales, strict=True)
            ]
        found = []
        for boxes, scores, labels, scale in zip(*self._compute(inputs), scales, strict=True):
            kept = labels >= 0  # the places after the last box are filled up with -1
            found.append((boxes[kept] / scale, scores[kept], labels[kept]))
        return found

    def raw_outputs(self, inputs: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """What a folder of kind raw computes.

        Args:
            inputs: (N, H, W, 3) uint8, as `network_input` makes them.

        Yields:
            Boxes (A, 4) and scores (A, classes) of each image.
        """
        start, batch = 0, self._loaded.batch
        while start < len(inputs):
            end = start + (batch if start + batch <= len(inputs) else 1)
            yield from zip(*self._compute(inputs[start:end]), strict=True)
            start = end

    def _compute(self, inputs: np.ndarray) -> list[np.ndarray]:
        with self._lock:
            return self._loaded.run(inputs)


class ExportedNetwork(ExportedFile):
    """A folder that `tools/export.py` wrote.

    Attributes:
        manifest: What `mixdet.json` holds.
        runtime: What runs it, one of `mixdet.inference.runtimes.FILES`.
        classes: Class names, indexed by label.

    Args:
        folder: The folder.
        runtime: Which to take; None for the first that can be had.

    Raises:
        MixDetError: A file is missing, damaged or changed, or no runtime for it is installed.
    """

    def __init__(
        self,
        folder: str | os.PathLike,
        runtime: str | None = None,
        threads: int | None = None,
    ) -> None:
        folder = Path(folder)
        manifest = read_manifest(folder)
        first = runtimes_of(folder, manifest, runtime)[0]
        super().__init__(manifest, _checked(folder, first, manifest["files"]), folder, threads)
        self.classes = tuple(manifest["classes"])


def network_input(images: Sequence[np.ndarray], manifest: dict[str, Any]) -> np.ndarray:
    """RGB images (H, W, 3) as the network takes them: (N, height, width, 3) uint8."""
    size = manifest["input"]["width"], manifest["input"]["height"]
    inputs = np.stack([cv2.resize(image, size) for image in images])  # bilinear
    return (
        np.ascontiguousarray(inputs[..., ::-1])
        if manifest["input"]["channels"] == "BGR"
        else inputs
    )


def suppress(
    boxes: np.ndarray, scores: np.ndarray, scale: np.ndarray, manifest: dict[str, Any]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """From raw outputs to detections, as mmdet's heads do it.

    On each level the `nms_pre` best pairs of anchor and class above `score_thr` are candidates;
    class-aware NMS leaves `max_per_img` of them.

    Args:
        boxes: (A, 4), (x1, y1, x2, y2) in pixels of the network's input.
        scores: (A, classes).
        scale: (4,), pixels of the input for each of the image.
        manifest: `levels` and `postprocess` of `mixdet.json`.

    Returns:
        Boxes (n, 4) in pixels of the image, scores (n,), descending, and labels (n,) int64.
    """
    rule = manifest["postprocess"]
    picked = []
    start = 0
    for level in manifest["levels"]:
        part = scores[start : start + level["anchors"]].ravel()
        pairs = np.flatnonzero(part > rule["score_thr"])
        if 0 < rule["nms_pre"] < len(pairs):
            pairs = pairs[np.argpartition(-part[pairs], rule["nms_pre"] - 1)[: rule["nms_pre"]]]
        picked.append(pairs + start * scores.shape[1])
        start += level["anchors"]
    anchors, labels = np.divmod(np.concatenate(picked), scores.shape[1])
    boxes, scores = boxes[anchors] / scale, scores[anchors, labels]
    sides = boxes[:, 2:] - boxes[:, :2]
    large = (sides > rule["min_bbox_size"]).all(1)
    boxes, scores, labels, sides = boxes[large], scores[large], labels[large], sides[large]
    kept = np.zeros(0, int)
    if len(boxes):  # OpenCV wants (x, y, width, height), and drops scores up to its threshold
        xywh = np.hstack([boxes[:, :2], sides]).astype(float)
        kept = cv2.dnn.NMSBoxesBatched(xywh, scores, labels.astype(np.int32), 0.0, rule["iou_thr"])
        kept = np.asarray(kept, int).ravel()
    kept = kept[np.argsort(-scores[kept], kind="stable")][: rule["max_per_img"]]
    return boxes[kept], scores[kept], labels[kept]


def read_manifest(folder: Path) -> dict[str, Any]:
    """Read `mixdet.json`.

    Raises:
        MixDetError: It is missing, damaged, or of a later version.
    """
    path = folder / MANIFEST
    if not path.is_file():  # nor a pipe, which is waited for
        inside = sorted(file.parent.name for file in folder.glob(f"*/{MANIFEST}"))
        inside = [name for name in inside if not name.startswith(UNVERIFIED)]
        hint = f", but {', '.join(inside)} in it has" if inside else ""
        raise MixDetError(f"{folder}: no exported folder: it has no {MANIFEST}{hint}")
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise MixDetError(f"{path} cannot be read ({error}): export again") from error
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise MixDetError(f"{path} is not of format {FORMAT}: export with this version of mixdet")
    if fault := _fault(manifest, LAYOUT):
        raise MixDetError(f"{path}: {fault} is missing or not what it should be: export again")
    return manifest


def _fault(value: Any, layout: Any, where: str = "") -> str | None:
    """The first place in a value that its layout does not allow, or None."""
    if isinstance(layout, dict):
        if not isinstance(value, dict):
            return where.removeprefix(".")
        inner = ((value.get(key), rule, f"{where}.{key}") for key, rule in layout.items())
    elif isinstance(layout, list):
        if not isinstance(value, list) or not value:
            return where.removeprefix(".")
        inner = ((each, layout[0], f"{where}[{index}]") for index, each in enumerate(value))
    else:
        return None if layout(value) else where.removeprefix(".")
    return next(filter(None, (_fault(*each) for each in inner)), None)


def sha256(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal digits."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def runtimes_of(folder: Path, manifest: dict[str, Any], wanted: str | None = None) -> list[str]:
    """Those of which a folder has a file and Python the package.

    Args:
        folder: The exported folder.
        manifest: Its `mixdet.json`.
        wanted: The only one that will do.

    Raises:
        MixDetError: There is none.
    """
    exported = [runtime for runtime, names in FILES.items() if names[0] in manifest["files"]]
    if wanted is not None and wanted not in exported:
        raise MixDetError(f"{folder} has no file for {wanted!r}, but for: {', '.join(exported)}")
    candidates = [wanted] if wanted else exported
    usable = [name for name in candidates if importlib.util.find_spec(PACKAGES[name])]
    if not usable:
        extras = " or ".join(f'pip install "mixdet[{name}]"' for name in candidates)
        raise MixDetError(f"{folder}: no runtime for it is installed: {extras}")
    return usable


def _checked(folder: Path, runtime: str, files: dict[str, str]) -> str:
    """The runtime, if its files are those that were exported."""
    for name in FILES[runtime]:
        if not (folder / name).is_file() or sha256(folder / name) != files.get(name):
            raise MixDetError(
                f"{folder / name} is missing or not the file that was exported (its SHA-256 is "
                f"not that in {MANIFEST}): copy the folder again, or export again"
            )
    return runtime
