"""From a trained detector's file to boxes: `Detector("epoch_12.pth")("street.jpg")`.

Importing this module loads neither torch nor mmdet. A checkpoint loads them when it is opened; an
exported folder never does.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mixdet.errors import MixDetError
from mixdet.images import as_rgb


@dataclass(frozen=True)
class Detections:
    """What a detector found in one image, best first.

    Attributes:
        boxes: (n, 4) float32, (x1, y1, x2, y2) in pixels of the image that was given.
        scores: (n,) float32 in 0..1.
        labels: (n,) int64, indices into the detector's `classes`.
        names: n class names, one a box.
    """

    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    names: list[str]

    def __len__(self) -> int:
        return len(self.scores)

    def above(self, score_thr: float) -> Detections:
        """Only those that score at least `score_thr`."""
        kept = np.flatnonzero(self.scores >= score_thr)
        names = [self.names[index] for index in kept]
        return Detections(self.boxes[kept], self.scores[kept], self.labels[kept], names)

    def as_dict(self) -> dict[str, list]:
        """Plain lists, for JSON."""
        return {
            "boxes": self.boxes.tolist(),
            "scores": self.scores.tolist(),
            "labels": self.labels.tolist(),
            "names": self.names,
        }


class Detector:
    """A trained detector: images in, boxes out, whatever the size of the images.

    Args:
        checkpoint: A checkpoint (`.pth`) of mmengine's, or a folder that `tools/export.py` wrote.
        config: The config that a checkpoint was trained with; without it, the one that stands in
            the checkpoint, which is read as plain values and not run.
        device: Where a checkpoint computes, such as `cpu` or `cuda:0`; a folder, on the CPU.
        trust_checkpoint: Unpickle objects and run the checkpoint's config: code of whoever made it.
        runtime: What runs a folder, 'onnx', 'openvino', 'ncnn', 'litert' or 'executorch'; without
            it, the first one of which the folder has a file and Python the package.

    Attributes:
        classes: Class names, indexed by label.

    Raises:
        MixDetError: The file cannot be read safely, lacks its config, or does not fit the config;
            a folder lacks a file, has a changed one, or one that no installed runtime loads.
    """

    def __init__(
        self,
        checkpoint: str | os.PathLike,
        config: str | os.PathLike | None = None,
        device: str = "cpu",
        *,
        trust_checkpoint: bool = False,
        runtime: str | None = None,
    ) -> None:
        # The one seam between files and predictions: `classes`, and a call that takes RGB arrays
        # and gives boxes (n, 4), scores (n,) and labels (n,) for each.
        self._network: Any
        if Path(checkpoint).is_dir():
            from mixdet.inference.exported import ExportedNetwork

            if config is not None or device != "cpu":
                raise MixDetError(
                    f"{checkpoint} is an exported folder: it has its config, and computes on the "
                    "CPU"
                )
            self._network = ExportedNetwork(checkpoint, runtime)
        elif Path(checkpoint).is_file():  # looked for before seconds are spent on imports
            from mixdet.inference.trained import TrainedNetwork

            if runtime is not None:
                raise MixDetError(f"{checkpoint}: runtime={runtime!r} is for an exported folder")
            self._network = TrainedNetwork(checkpoint, config, device, trust_checkpoint)
            self._network.predictor = None  # but a fused copy
        else:
            raise MixDetError(f"{checkpoint}: no such checkpoint file or exported folder")
        self.classes: tuple[str, ...] = self._network.classes

    def __call__(
        self, images: Any, *, score_thr: float = 0.0, batch_size: int = 8
    ) -> Detections | list[Detections]:
        """Detect in one image, or in each of a list.

        Args:
            images: A path, an array or a PIL image (see `as_rgb`), or a list of such.
            score_thr: Detections below it are left out; the config has a threshold of its own.
            batch_size: Images taken at a time. From 8 on, OpenVINO's files of kind raw compute
                eight together, which is faster, but compiled at the first such list.

        Returns:
            `Detections`, or a list of them for a list.

        Raises:
            MixDetError: An image cannot be read.
        """
        if not isinstance(images, list | tuple):
            return self([images], score_thr=score_thr)[0]
        found = []
        for start in range(0, len(images), batch_size):
            batch = [as_rgb(image) for image in images[start : start + batch_size]]
            for boxes, scores, labels in self._network(batch):
                order = np.argsort(-scores, kind="stable")
                names = [self._name(label) for label in labels[order]]
                detections = Detections(boxes[order], scores[order], labels[order], names)
                found.append(detections.above(score_thr))
        return found

    def _name(self, label: int) -> str:
        return self.classes[label] if label < len(self.classes) else str(label)
