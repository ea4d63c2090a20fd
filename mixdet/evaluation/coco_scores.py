"""Compute the 12 COCO metrics and the AP of each class, without rounding."""

from __future__ import annotations

import contextlib
import gc
import io
import math
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from pycocotools.coco import COCO

from mixdet.annotations.reading import read_table
from mixdet.evaluation.detection_arrays import DetectionArrays
from mixdet.evaluation.evaluators import BACKENDS, make_evaluator, sorted_ids
from mixdet.evaluation.ground_truth import GroundTruth

# Names for pycocotools' `stats`, in its order. The first six are average precisions: over IoU 0.50
# to 0.95, at IoU 0.50, at IoU 0.75, and for small, medium and large objects. The last six are
# average recalls: with at most 1, 10 and 100 boxes per image, and with at most 100 boxes for small,
# medium and large objects.
STATS = (
    *("bbox_mAP", "bbox_mAP_50", "bbox_mAP_75", "bbox_mAP_s", "bbox_mAP_m", "bbox_mAP_l"),
    *("AR_1", "AR_10", "AR_100", "AR_s_100", "AR_m_100", "AR_l_100"),
)


@dataclass(frozen=True)
class BoxScores:
    """The results of an evaluation, from 0 to 1.

    Attributes:
        stats: The 12 COCO metrics by their names in `STATS`. A metric is -1 if there is no object
            for it.
        per_class: AP over IoU 0.50 to 0.95 by class name, or NaN for a class without objects.
        per_class_50: AP at IoU 0.50 by class name, or NaN for a class without objects.
    """

    stats: dict[str, float]
    per_class: dict[str, float]
    per_class_50: dict[str, float]

    def table(self) -> str:
        """Return a table in percent for a terminal: the averages, then every class."""
        heads = ("mAP", "mAP50", "mAP75", "small", "medium", "large", "AR_100")
        values = [self.stats[name] for name in (*STATS[:6], "AR_100")]
        lines = [
            "".join(f"{head:>8}" for head in heads),
            "".join(_percent(value, 8) for value in values),
            "",
            "AP and AP50 by class",
        ]
        width = max((len(name) for name in self.per_class), default=0)
        cells = [
            f"{name:<{width}}{_percent(ap, 7)}{_percent(self.per_class_50[name], 7)}"
            for name, ap in self.per_class.items()
        ]
        columns = max(1, 100 // (width + 17))
        rows = math.ceil(len(cells) / columns)
        lines += ["   ".join(cells[row::rows]) for row in range(rows)]
        return "\n".join(lines)


def class_metric_names(classes: Iterable[str], metric: str = "AP") -> dict[str, str]:
    """Return the name of each class's metric, such as `AP/cat`, by the name of the class.

    MLflow accepts letters, digits, spaces, `_`, `-`, `.` and `/` in the name of a metric. In the
    name of a class, `/` and all characters that MLflow refuses are replaced by `_`.
    """
    names: dict[str, str] = {}
    for name in classes:
        known = re.sub(r"[^\w\-. ]", "_", str(name))
        known = known if known.strip(". ") else "_"  # MLflow refuses paths such as AP/..
        while f"{metric}/{known}" in names.values():
            known += "_"
        names[name] = f"{metric}/{known}"
    return names


def _percent(value: float, width: int) -> str:
    return f"{'-' if math.isnan(value) or value < 0 else f'{100 * value:.1f}':>{width}}"


@contextlib.contextmanager
def pause_garbage_collection() -> Iterator[None]:
    """Pause Python's search for reference cycles.

    An evaluation creates many small objects without cycles. Every search visits all these objects.
    The searches take a third of the evaluation's time.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def load_coco(ann_file: str | os.PathLike, name: str | None = None) -> COCO:
    """Read an annotation file, with normalized annotations (see `mixdet.annotations`).

    The result holds the boxes. Other fields of the annotations, such as polygons, are left out.

    Args:
        ann_file: The file.
        name: Name of the file in messages. By default it is `ann_file`.

    Raises:
        MixDetError: The file does not exist, or is not in COCO's format.
    """
    return GroundTruth(read_table(ann_file, name))


def as_results(
    image_id: int, boxes: list, scores: list, labels: list, category_ids: Sequence[int]
) -> list[dict[str, Any]]:
    """Convert the detections of an image to COCO's results format.

    Args:
        image_id: Id of the image.
        boxes: n boxes, (x1, y1, x2, y2) in pixels of the original image.
        scores: n scores.
        labels: n labels.
        category_ids: The category id of each label.

    Returns:
        One dict per box, with the box as (x, y, width, height).
    """
    return [
        {
            "image_id": image_id,
            "category_id": category_ids[label],
            "bbox": [x1, y1, x2 - x1, y2 - y1],
            "score": score,
        }
        for (x1, y1, x2, y2), score, label in zip(boxes, scores, labels, strict=True)
    ]


@pause_garbage_collection()
def score_boxes(
    truth: COCO,
    detections: Sequence[dict[str, Any]] | DetectionArrays,
    category_ids: Iterable[int | str] | None = None,
    image_ids: Iterable[int | str] | None = None,
    backend: str = BACKENDS[0],
) -> BoxScores:
    """Evaluate boxes with pycocotools' own parameters (1, 10 and 100 boxes per image).

    Args:
        truth: The annotations, from `load_coco`.
        detections: Detections in COCO's results format, with `image_id`, `category_id`, `bbox`
            in (x, y, width, height) pixels and `score`, or in arrays. There may be none.
        category_ids: Categories to evaluate, by default all categories of the file.
        image_ids: Images to evaluate, by default all images of the file.
        backend: 'pycocotools', or 'hotcoco', which gives the same results to the last bit in less
            time, or 'faster_coco_eval', which differs by rounding errors.

    Raises:
        MixDetError: The backend is unknown or not installed. Or a detection has a number that is
            not finite, or an image or a category that is not in the file.
    """
    categories = sorted_ids(truth.cats if category_ids is None else category_ids)
    evaluation = make_evaluator(truth, detections, categories, image_ids, backend)
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    # The dimensions are (IoU, recall, class, object size, limit of boxes). Undefined values are -1.
    precision = evaluation.eval["precision"]
    names = [truth.cats[category]["name"] for category in categories]
    return BoxScores(
        dict(zip(STATS, map(float, evaluation.stats[: len(STATS)]), strict=True)),
        {name: _mean(precision[:, :, column, 0, -1]) for column, name in enumerate(names)},
        {name: _mean(precision[0, :, column, 0, -1]) for column, name in enumerate(names)},
    )


def _mean(precision: np.ndarray) -> float:
    """Return the mean of the defined precisions, or NaN if none is defined."""
    defined = precision[precision > -1]
    return float(defined.mean()) if defined.size else math.nan
