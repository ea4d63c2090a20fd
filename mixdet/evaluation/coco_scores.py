"""Compute the 12 COCO metrics and the AP of each class with pycocotools, without rounding."""

from __future__ import annotations

import contextlib
import gc
import io
import math
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from mixdet.errors import MixDetError

# Names for pycocotools' `stats`, in its order. The first six are average precisions: over IoU 0.50
# to 0.95, at IoU 0.50, at IoU 0.75, and for small, medium and large objects. The last six are
# average recalls: with at most 1, 10 and 100 boxes per image, and with at most 100 boxes for small,
# medium and large objects.
STATS = (
    *("bbox_mAP", "bbox_mAP_50", "bbox_mAP_75", "bbox_mAP_s", "bbox_mAP_m", "bbox_mAP_l"),
    *("AR_1", "AR_10", "AR_100", "AR_s_100", "AR_m_100", "AR_l_100"),
)

BACKENDS = ("pycocotools", "faster_coco_eval")


@dataclass(frozen=True)
class BoxScores:
    """The results of an evaluation, from 0 to 1.

    Attributes:
        stats: The 12 COCO metrics by their names in `STATS`. A metric is -1 if there is no object
            for it.
        per_class: AP over IoU 0.50 to 0.95 by class name, or NaN for a class without objects.
    """

    stats: dict[str, float]
    per_class: dict[str, float]

    def table(self) -> str:
        """Return a table in percent for a terminal: the averages, then every class."""
        heads = ("mAP", "mAP50", "mAP75", "small", "medium", "large", "AR_100")
        values = [self.stats[name] for name in (*STATS[:6], "AR_100")]
        lines = [
            "".join(f"{head:>8}" for head in heads),
            "".join(_percent(value, 8) for value in values),
            "",
            "AP by class",
        ]
        width = max((len(name) for name in self.per_class), default=0)
        cells = [f"{name:<{width}}{_percent(ap, 7)}" for name, ap in self.per_class.items()]
        columns = max(1, 100 // (width + 10))
        rows = math.ceil(len(cells) / columns)
        lines += ["   ".join(cells[row::rows]) for row in range(rows)]
        return "\n".join(lines)


def class_metric_names(classes: Iterable[str]) -> dict[str, str]:
    """Return the name of each class's AP, such as `AP/cat`, by the name of the class.

    MLflow accepts letters, digits, spaces, `_`, `-`, `.` and `/` in the name of a metric. In the
    name of a class, any other character and `/` are replaced by `_`.
    """
    names: dict[str, str] = {}
    for name in classes:
        known = re.sub(r"[^\w\-. ]", "_", str(name))
        known = known if known.strip(". ") else "_"  # MLflow refuses paths such as AP/..
        while f"AP/{known}" in names.values():
            known += "_"
        names[name] = f"AP/{known}"
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


def load_coco(ann_file: str | os.PathLike) -> COCO:
    """Read an annotation file, and hide what pycocotools prints.

    Raises:
        MixDetError: The file does not exist, or is not in COCO's format.
    """
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            return COCO(os.fspath(ann_file))
    except OSError as error:
        raise MixDetError(f"{ann_file}: cannot read the annotations ({error.strerror})") from error
    except (ValueError, AssertionError, KeyError, TypeError, RecursionError) as error:
        raise MixDetError(f"{ann_file}: not a COCO annotation file ({error})") from error


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
    detections: Sequence[dict[str, Any]],
    category_ids: Sequence[int] | None = None,
    image_ids: Sequence[int] | None = None,
    backend: str = BACKENDS[0],
) -> BoxScores:
    """Evaluate boxes with pycocotools' own parameters (1, 10 and 100 boxes per image).

    Args:
        truth: The annotations.
        detections: Detections in COCO's results format, with `image_id`, `category_id`, `bbox`
            in (x, y, width, height) pixels and `score`. The list may be empty.
        category_ids: Categories to evaluate, by default all categories of the file.
        image_ids: Images to evaluate, by default all images of the file.
        backend: 'pycocotools', or 'faster_coco_eval', which gives the same results in less time.

    Raises:
        MixDetError: The backend is unknown or not installed.
    """
    evaluator_class, convert = load_backend(backend)
    with contextlib.redirect_stdout(io.StringIO()):
        detected = as_coco(truth, detections)
        evaluation = evaluator_class(convert(truth), convert(detected), "bbox")
        if category_ids is not None:
            evaluation.params.catIds = sorted(category_ids)
        if image_ids is not None:
            evaluation.params.imgIds = sorted(image_ids)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    # The dimensions are (IoU, recall, class, object size, limit of boxes). Undefined values are -1.
    precision = evaluation.eval["precision"]
    per_class = {}
    for column, category in enumerate(evaluation.params.catIds):
        values = precision[:, :, column, 0, -1]
        values = values[values > -1]
        name = truth.cats[category]["name"]
        per_class[name] = float(values.mean()) if values.size else math.nan
    return BoxScores(
        dict(zip(STATS, map(float, evaluation.stats[: len(STATS)]), strict=True)), per_class
    )


def load_backend(backend: str) -> tuple[type, Callable[[COCO], Any]]:
    """Import the backend of an evaluation.

    Args:
        backend: One of `BACKENDS`.

    Returns:
        The evaluator's class, and a function that converts a `COCO` object of pycocotools to the
        type that the evaluator needs.

    Raises:
        MixDetError: The backend is unknown or not installed.
    """
    if backend not in BACKENDS:
        raise MixDetError(
            f"backend={backend!r} of the COCO metric is unknown: use one of {BACKENDS}"
        )
    if backend == "pycocotools":
        return COCOeval, lambda coco: coco
    try:
        import faster_coco_eval as faster
    except ImportError as error:
        raise MixDetError(
            'backend="faster_coco_eval" needs another package: pip install "mixdet[fast-eval]"'
        ) from error
    return faster.COCOeval_faster, lambda coco: faster.COCO(coco.dataset)


def as_coco(truth: COCO, detections: Sequence[dict[str, Any]]) -> COCO:
    """Convert detections to pycocotools' `COCO`.

    Args:
        truth: The annotations.
        detections: Detections in COCO's results format. The list may be empty, which `COCO.loadRes`
            does not support.
    """
    if detections:
        return truth.loadRes([dict(detection) for detection in detections])
    empty = COCO()
    empty.dataset = {**truth.dataset, "annotations": []}
    empty.createIndex()
    return empty
