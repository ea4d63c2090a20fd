"""COCO's 12 numbers and the AP of each class, as pycocotools computes them, unrounded."""

from __future__ import annotations

import contextlib
import gc
import io
import math
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from mixdet.errors import MixDetError

# The names of pycocotools' `stats`, in its order: average precision (over IoU 0.50 to 0.95, at
# 0.50, at 0.75, and of small, medium and large objects) and average recall with at most 1, 10 and
# 100 boxes an image, and with 100 by size. -1 where the data set has no such object.
STATS = (
    *("bbox_mAP", "bbox_mAP_50", "bbox_mAP_75", "bbox_mAP_s", "bbox_mAP_m", "bbox_mAP_l"),
    *("AR@1", "AR@10", "AR@100", "AR_s@100", "AR_m@100", "AR_l@100"),
)

BACKENDS = ("pycocotools", "faster_coco_eval")


@dataclass(frozen=True)
class BoxScores:
    """What an evaluation gives.

    Attributes:
        stats: COCO's 12 numbers by the names in `STATS`.
        per_class: AP over IoU 0.50 to 0.95 by class name; NaN for a class without an object.
    """

    stats: dict[str, float]
    per_class: dict[str, float]

    def table(self) -> str:
        """The numbers in percent, for a terminal: averages first, then every class."""
        heads = ("mAP", "mAP50", "mAP75", "small", "medium", "large", "AR@100")
        values = [self.stats[name] for name in (*STATS[:6], "AR@100")]
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


def _percent(value: float, width: int) -> str:
    return f"{'-' if math.isnan(value) or value < 0 else f'{100 * value:.1f}':>{width}}"


@contextlib.contextmanager
def no_cycle_search() -> Iterator[None]:
    """Have Python not search for reference cycles.

    An evaluation makes many small objects, which are freed without it, and each search looks
    through all that there are: a third of the time.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def load_coco(ann_file: str | os.PathLike) -> COCO:
    """Read an annotation file, without what pycocotools prints.

    Raises:
        MixDetError: There is no such file, or it is not in COCO's format.
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
    """An image's detections as COCO results.

    Args:
        image_id: Of the image.
        boxes: (x1, y1, x2, y2) in pixels of the original image.
        scores: Of the boxes.
        labels: Of the boxes.
        category_ids: By label.
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


@no_cycle_search()
def score_boxes(
    truth: COCO,
    detections: Sequence[dict[str, Any]],
    category_ids: Sequence[int] | None = None,
    image_ids: Sequence[int] | None = None,
    backend: str = BACKENDS[0],
) -> BoxScores:
    """Evaluate detected boxes with pycocotools' own parameters (1, 10 and 100 boxes an image).

    Args:
        truth: The annotations.
        detections: COCO results: `image_id`, `category_id`, `bbox` in (x, y, width, height) pixels,
            `score`. May be empty.
        category_ids: Categories to evaluate; all of the file by default.
        image_ids: Images to evaluate; all of the file by default.
        backend: 'pycocotools', or 'faster_coco_eval', which gives the same numbers sooner.

    Raises:
        MixDetError: The backend is unknown or not installed.
    """
    kind, translate = evaluator(backend)
    with contextlib.redirect_stdout(io.StringIO()):
        found = as_coco(truth, detections)
        evaluation = kind(translate(truth), translate(found), "bbox")
        if category_ids is not None:
            evaluation.params.catIds = sorted(category_ids)
        if image_ids is not None:
            evaluation.params.imgIds = sorted(image_ids)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    precision = evaluation.eval["precision"]  # (IoU, recall, class, size, most boxes), -1 undefined
    per_class = {}
    for column, category in enumerate(evaluation.params.catIds):
        values = precision[:, :, column, 0, -1]
        values = values[values > -1]
        name = truth.cats[category]["name"]
        per_class[name] = float(values.mean()) if values.size else math.nan
    return BoxScores(
        dict(zip(STATS, map(float, evaluation.stats[: len(STATS)]), strict=True)), per_class
    )


def evaluator(backend: str) -> tuple[type, Callable[[COCO], Any]]:
    """A backend's evaluation class, and how pycocotools' data become what it takes.

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
            'backend="faster_coco_eval" needs a package: pip install "mixdet[fast-eval]"'
        ) from error
    return faster.COCOeval_faster, lambda coco: faster.COCO(coco.dataset)


def as_coco(truth: COCO, detections: Sequence[dict[str, Any]]) -> COCO:
    """Detections as pycocotools wants them; its `loadRes` fails where there are none."""
    if detections:
        return truth.loadRes([dict(detection) for detection in detections])
    empty = COCO()
    empty.dataset = {**truth.dataset, "annotations": []}
    empty.createIndex()
    return empty
