"""Which object each detection matches. Scores are computed from these matches.

Pycocotools matches the detections with the objects of each image and class separately. So the
matches of all images are enough to compute the AP of any selection of images. `MatchFile` keeps the
matches of all runs of a comparison in `matches.npz`. No annotation, image or checkpoint is needed
to compute scores from it.
"""

from __future__ import annotations

import contextlib
import io
import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import Params

from mixdet.errors import MixDetError
from mixdet.evaluation.evaluators import make_evaluator, sorted_ids
from mixdet.outputs import write_atomically

RECALLS = Params("bbox").recThrs
IOU_THRESHOLDS = Params("bbox").iouThrs


class ClassMatches(NamedTuple):
    """The objects and the n detections of one class. The detections are sorted by falling score.

    Attributes:
        image: (n,) index of each detection's image.
        correct: (IoU thresholds, n) bool, whether a detection is matched with an object.
        wrong: (IoU thresholds, n) bool, whether a detection is matched with no object. A detection
            that is neither correct nor wrong is ignored.
        objects: (images,) number of objects in each image.
    """

    image: np.ndarray
    correct: np.ndarray
    wrong: np.ndarray
    objects: np.ndarray

    @classmethod
    def from_evaluation(
        cls, evaluated: Sequence[dict | None], order: Sequence[int], max_detections: int
    ) -> ClassMatches:
        """Collect the matches from `COCOeval.evalImgs` of one class.

        Args:
            evaluated: The entries, one per image.
            order: For each entry, the index of its image.
            max_detections: Largest number of detections per image. Further detections are left out.
        """
        objects, parts = np.zeros(len(order)), []
        for index, entry in zip(order, evaluated, strict=True):
            if entry is None:
                continue
            objects[index] = np.count_nonzero(np.asarray(entry["gtIgnore"]) == 0)
            matched = entry["dtMatches"][:, :max_detections].astype(bool)
            counted = ~entry["dtIgnore"][:, :max_detections].astype(bool)
            scores = np.asarray(entry["dtScores"][:max_detections])
            image = np.full(len(scores), index)
            parts.append((scores, image, matched & counted, ~matched & counted))
        if not parts:
            empty = np.zeros((len(IOU_THRESHOLDS), 0), bool)
            return cls(np.zeros(0, int), empty, empty, objects)
        scores, image, correct, wrong = (
            np.concatenate(part, axis=-1) for part in zip(*parts, strict=True)
        )
        # A stable sort, as in pycocotools: equal scores keep their order.
        order_by_score = np.argsort(-scores, kind="mergesort")
        return cls(
            image[order_by_score], correct[:, order_by_score], wrong[:, order_by_score], objects
        )

    def precision(self, weights: np.ndarray) -> np.ndarray | None:
        """Return the interpolated precision on images that have weights.

        Args:
            weights: (images,) how often each image counts.

        Returns:
            (IoU thresholds, recalls), or None if the images hold no object.
        """
        objects = weights @ self.objects
        if not objects:
            return None
        weight = weights[self.image]
        correct = np.cumsum(self.correct * weight, axis=1)
        wrong = np.cumsum(self.wrong * weight, axis=1)
        precision = correct / np.maximum(correct + wrong, np.spacing(1))
        precision = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
        padded = np.pad(precision, ((0, 0), (0, 1)))  # 0 for a recall that is never reached
        return np.stack(
            [
                row[np.searchsorted(recall, RECALLS, side="left")]
                for row, recall in zip(padded, correct / objects, strict=True)
            ]
        )


class ImageAP:
    """Computes the mAP of detections on images that have weights.

    A bootstrap draws images with replacement. The weight of an image is how often it was drawn. If
    all weights are 1, the result is the mAP of `score_boxes`.

    Args:
        classes: The matches of each class, from `match_images`.
    """

    def __init__(self, classes: Sequence[ClassMatches]) -> None:
        self._classes = classes

    def __call__(self, weights: np.ndarray) -> float:
        """Compute the mAP over IoU 0.50 to 0.95.

        Args:
            weights: (images,) how often each image was drawn.

        Returns:
            The mAP, or -1 if no image with a weight above 0 holds an object.
        """
        precisions = [matches.precision(weights) for matches in self._classes]
        precisions = [precision for precision in precisions if precision is not None]
        return float(np.mean(precisions)) if precisions else -1.0


def match_images(
    truth: COCO,
    detections: Sequence[dict[str, Any]],
    images: Sequence[int | str],
    category_ids: Sequence[int | str] | None = None,
) -> list[ClassMatches]:
    """Match detections with objects by pycocotools.

    Args:
        truth: The annotations, from `load_coco`.
        detections: COCO results.
        images: Ids of the images, in the order of the weights of `ImageAP`.
        category_ids: Categories to evaluate, by default all categories of the file.

    Returns:
        The matches of each category, in ascending order of the ids.
    """
    evaluation = make_evaluator(truth, detections, category_ids, images)
    evaluation.params.areaRng = evaluation.params.areaRng[:1]
    evaluation.params.areaRngLbl = evaluation.params.areaRngLbl[:1]
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation.evaluate()
    max_detections = evaluation.params.maxDets[-1]
    # The evaluator sorts the ids, but the weights are in the caller's order.
    index_of = {image: index for index, image in enumerate(images)}
    order = [index_of[image] for image in sorted_ids(images)]
    count = len(images)
    return [
        ClassMatches.from_evaluation(
            evaluation.evalImgs[start : start + count], order, max_detections
        )
        for start in range(0, len(evaluation.evalImgs), count)
    ]


@dataclass
class MatchFile:
    """The matches of all runs of a comparison: the file `matches.npz`.

    Attributes:
        classes: Names of the classes, in the order of the matches.
        runs: The matches of each class by row and seed.
    """

    NAME = "matches.npz"

    classes: list[str] = field(default_factory=list)
    runs: dict[tuple[str, int], list[ClassMatches]] = field(default_factory=dict)

    @classmethod
    def read(cls, folder: Path) -> MatchFile:
        """Read the file in a folder. If it does not exist, the result has no run.

        Raises:
            MixDetError: The file is damaged.
        """
        file = folder / cls.NAME
        if not file.is_file():
            return cls()
        try:
            with np.load(file, allow_pickle=False) as arrays:
                content = {name: arrays[name] for name in arrays.files}
            objects = content.pop("objects").astype(float)
            classes = content.pop("classes").tolist()
            runs = {}
            for name in content:
                run, _, part = name.rpartition("/")
                if part == "counts":
                    row, _, seed = run.rpartition("/")
                    runs[row, int(seed)] = _unpack(content, run, objects)
        except (KeyError, ValueError, OSError, zipfile.BadZipFile) as error:
            raise MixDetError(
                f"{file}: cannot be read ({error}): restore it, or delete it (the report then "
                "leaves out the classes and the intervals over images)"
            ) from error
        return cls(classes, runs)

    def write(self, folder: Path) -> None:
        """Write the file into a folder."""
        arrays = {"classes": np.array(self.classes)}
        for (row, seed), classes in sorted(self.runs.items()):
            arrays["objects"] = np.stack([matches.objects for matches in classes]).astype("uint16")
            counts = [len(matches.image) for matches in classes]
            image = np.concatenate([matches.image for matches in classes])
            arrays |= {
                f"{row}/{seed}/counts": np.array(counts, "uint32"),
                f"{row}/{seed}/image": image.astype(np.min_scalar_type(image.max(initial=0))),
                f"{row}/{seed}/correct": _bits([matches.correct for matches in classes]),
                f"{row}/{seed}/wrong": _bits([matches.wrong for matches in classes]),
            }
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **arrays)
        write_atomically(folder / self.NAME, buffer.getvalue())

    def class_scores(self, row: str, seeds: Iterable[int]) -> dict[str, tuple[float, float]]:
        """Return the mean AP (IoU 0.50 to 0.95) and AP50 of each class over the seeds of a row.

        Both are from 0 to 1. Classes without objects in the validation set are left out. Seeds that
        the file does not have are left out too.
        """
        runs = [self.runs[row, seed] for seed in seeds if (row, seed) in self.runs]
        scores = {}
        for index, name in enumerate(self.classes if runs else ()):
            precisions = [
                classes[index].precision(np.ones(len(classes[index].objects))) for classes in runs
            ]
            if precisions[0] is not None:
                aps = [float(np.mean(precision)) for precision in precisions]
                aps50 = [float(np.mean(precision[0])) for precision in precisions]
                scores[name] = float(np.mean(aps)), float(np.mean(aps50))
        return scores


def _bits(arrays: Sequence[np.ndarray]) -> np.ndarray:
    """Pack (IoU thresholds, n) booleans of each class into one number for each detection."""
    powers = 1 << np.arange(len(IOU_THRESHOLDS))
    return (powers @ np.concatenate(arrays, axis=1)).astype("uint16")


def _unpack(content: dict[str, np.ndarray], run: str, objects: np.ndarray) -> list[ClassMatches]:
    """Return the matches of a run from the arrays of the file."""
    powers = (1 << np.arange(len(IOU_THRESHOLDS)))[:, None]
    correct, wrong = ((content[f"{run}/{part}"] & powers) > 0 for part in ("correct", "wrong"))
    image = content[f"{run}/image"].astype(int)
    ends = np.cumsum(content[f"{run}/counts"].astype(int))
    return [
        ClassMatches(image[start:end], correct[:, start:end], wrong[:, start:end], counts)
        for start, end, counts in zip([0, *ends[:-1]], ends, objects, strict=True)
    ]
