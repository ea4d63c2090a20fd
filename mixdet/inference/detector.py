"""The class `Detector`, which runs a checkpoint or a folder that `tools/export.py` wrote."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mixdet.errors import MixDetError, one_line
from mixdet.file_kinds import other_kind, require_checkpoint
from mixdet.images import as_rgb
from mixdet.inference.exported import ExportedNetwork
from mixdet.inference.processes import check_process, usable_threads
from mixdet.inference.work_ahead import map_ahead, thread_pool

if TYPE_CHECKING:
    import supervision


@dataclass(frozen=True)
class Detections:
    """The detections in one image, by descending score.

    Attributes:
        boxes: (n, 4) float32, (x1, y1, x2, y2) in pixels of the image.
        scores: (n,) float32, from 0 to 1.
        labels: (n,) int64, indices into the detector's `classes`.
        names: The class name of each box.
    """

    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    names: list[str]

    def __len__(self) -> int:
        return len(self.scores)

    def above(self, score_thr: float) -> Detections:
        """Return the detections with a score of at least `score_thr`."""
        high = np.flatnonzero(self.scores >= score_thr)
        names = [self.names[index] for index in high]
        return Detections(self.boxes[high], self.scores[high], self.labels[high], names)

    def as_dict(self) -> dict[str, list]:
        """Return the attributes as plain lists, for JSON."""
        return {
            "boxes": self.boxes.tolist(),
            "scores": self.scores.tolist(),
            "labels": self.labels.tolist(),
            "names": self.names,
        }

    def to_supervision(self) -> supervision.Detections:
        """Return the detections as `supervision.Detections`, to track, count, slice or draw them.

        The class names are in `data["class_name"]`, where supervision's annotators look for them.

        Raises:
            MixDetError: supervision is not installed.
        """
        try:
            import supervision
        except ImportError as error:
            raise MixDetError(
                f'to_supervision: {one_line(error)}: pip install "mixdet[supervision]"'
            ) from error
        return supervision.Detections(
            xyxy=self.boxes,
            confidence=self.scores,
            class_id=self.labels.astype(int),
            data={"class_name": np.array(self.names, dtype=str)},
        )


class Detector:
    """A trained detector, which takes images of any size and returns boxes.

    A detector works only in the process that created it. A forked process must create its own
    detector. A pickled detector contains no weights: unpickling loads the files again.

    Args:
        checkpoint: A checkpoint of mmengine (`.pth`), or a folder that `tools/export.py` wrote.
        config: Path of the config that the checkpoint was trained with. By default the detector
            takes the config in the checkpoint. That config is read as plain values, and not run.
            If the checkpoint was trained with images of another size than the config has (see
            `tools/train.py --size`), the detector takes the size of the training, and warns.
        device: The device for a checkpoint, such as `cpu` or `cuda:0`. A folder always runs on the
            CPU.
        trust_checkpoint: Unpickle any object in the checkpoint, and run its config. Both can run
            any code, so use this only if you trust the source of the checkpoint.
        runtime: The runtime for a folder: 'onnx', 'openvino', 'ncnn', 'litert' or 'executorch'. By
            default it is the first of these that has a file in the folder and is installed.
        threads: Number of CPU threads to compute with. By default it is the environment variable
            `OMP_NUM_THREADS`. If this is not set, the runtime chooses. For a folder, the number
            applies to this detector only, and ExecuTorch refuses it. For a checkpoint,
            `torch.set_num_threads` applies the number to the whole process.

    Attributes:
        classes: Class names, indexed by label.

    Raises:
        MixDetError: The checkpoint cannot be read safely, has no config, or does not fit its
            config. A file of the folder is missing or was changed, or no runtime for its files is
            installed. An argument has a wrong value. `config` or a `device` other than `cpu` is
            given for a folder, or `runtime` is given for a checkpoint.
    """

    def __init__(
        self,
        checkpoint: str | os.PathLike,
        config: str | os.PathLike | None = None,
        device: str = "cpu",
        *,
        trust_checkpoint: bool = False,
        runtime: str | None = None,
        threads: int | None = None,
    ) -> None:
        if threads is not None and threads < 1:
            raise MixDetError(f"threads={threads}: give 1 or more")
        # A `TrainedNetwork` or an `ExportedNetwork`. Both have the attribute `classes`. A call with
        # a list of RGB arrays returns boxes (n, 4), scores (n,) and labels (n,) for each array
        self._network: Any
        require_checkpoint(checkpoint, exported=True)
        if Path(checkpoint).is_dir():
            if config is not None or device != "cpu":
                raise MixDetError(
                    f"{checkpoint} is an exported folder: it takes neither config nor device: "
                    "leave them out (the folder contains its config and runs on the CPU)"
                )
            self._network = ExportedNetwork(checkpoint, runtime, threads)
        else:
            if runtime is not None:
                raise MixDetError(
                    f"{checkpoint} is a file, and runtime={runtime!r} is for an exported folder: "
                    "leave runtime out"
                )
            TrainedNetwork = _import_trained_network(checkpoint)
            if (threads := usable_threads("torch", threads)) is not None:
                import torch

                torch.set_num_threads(threads)
            self._network = TrainedNetwork(checkpoint, config, device, trust_checkpoint, fuse=True)
        self.classes: tuple[str, ...] = self._network.classes
        self._process = os.getpid()
        self._arguments = {
            "checkpoint": Path(checkpoint).absolute(),
            "config": Path(config).absolute() if config and Path(config).is_file() else config,
            "device": device,
            "trust_checkpoint": trust_checkpoint,
            "runtime": runtime,
            "threads": threads,
        }

    def __reduce__(self) -> tuple:
        """Pickle the arguments: a copy in another process loads the files again."""
        return partial(type(self), **self._arguments), ()

    def __call__(
        self, images: Any, *, score_thr: float = 0.0, batch_size: int = 8
    ) -> Detections | list[Detections]:
        """Detect objects in one image, or in each image of a list.

        Args:
            images: An image, or a list of images. An image is anything that `mixdet.images.as_rgb`
                takes, such as a path, an array or a PIL image.
            score_thr: Leave out detections with a lower score. The threshold of the config is
                applied first.
            batch_size: Number of images computed at a time. Up to 8 threads of ONNX Runtime or
                OpenVINO each compute an image of their own, which is faster than sharing one. The
                first call with several images is slow, because it loads the network again. With
                one thread, or more than 8, OpenVINO computes eight images at once if the folder
                was exported with `--kind raw`. Files are read while the network computes.

        Returns:
            `Detections` for an image, or a list of `Detections` for a list of images.

        Raises:
            MixDetError: An image cannot be read, or this process is a fork of the one that made the
                detector.
        """
        check_process(self._process)
        if not isinstance(images, list | tuple):
            return self([images], score_thr=score_thr)[0]
        with ExitStack() as stack:
            arrays: Iterator[np.ndarray] = map(as_rgb, images)
            if len(images) > 1 and not all(isinstance(image, np.ndarray) for image in images):
                # Other threads read the next images while the network computes
                pool = stack.enter_context(thread_pool())
                arrays = stack.enter_context(map_ahead(pool, as_rgb, images, batch_size))
            results = []
            while batch := list(islice(arrays, batch_size)):
                results += [self._detections(*found, score_thr) for found in self._network(batch)]
        return results

    def _detections(
        self, boxes: np.ndarray, scores: np.ndarray, labels: np.ndarray, score_thr: float
    ) -> Detections:
        order = np.argsort(-scores, kind="stable")
        names = [self._name(label) for label in labels[order]]
        return Detections(boxes[order], scores[order], labels[order], names).above(score_thr)

    def _name(self, label: int) -> str:
        return self.classes[label] if label < len(self.classes) else str(label)


def _import_trained_network(checkpoint: str | os.PathLike) -> type:
    """Import the class that runs a checkpoint. This loads torch and mmdet, and takes seconds.

    Raises:
        MixDetError: A package is not installed. Only exported folders can run without it.
    """
    try:
        from mixdet.inference.trained import TrainedNetwork
    except ModuleNotFoundError as error:
        if (kind := other_kind(checkpoint)) is not None:
            raise MixDetError(f"{checkpoint} is {kind}") from error
        raise MixDetError(
            f"{checkpoint}: a checkpoint needs the package {error.name}, which is not installed: "
            "pip install mixdet, or name an exported folder"
        ) from error
    return TrainedNetwork
