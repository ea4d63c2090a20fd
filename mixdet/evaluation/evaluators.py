"""Make the evaluator of boxes of any backend. All evaluators get the same numbers.

The evaluators disagree about unusual input. Therefore `make_evaluator` prepares it for all of them:

- Images and categories are numbered from 1 in the order of their ids, since an evaluator needs ids
  that are whole numbers, but the ids in a file may be text. Annotations are numbered in the order
  of the file.
- Only the boxes of the given images and categories remain.
- All numbers are float64. The area of a detection is its width times its height.
- If this area is 0, the width and the height become 0. pycocotools would divide 0 by 0 if the area
  of a tiny detection in a crowd is rounded to 0.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import repeat
from typing import Any

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from mixdet.errors import MixDetError
from mixdet.evaluation.detection_arrays import DetectionArrays, check_detections

# The first one is the reference. hotcoco gives the same results to the last bit in less time.
# faster_coco_eval differs by rounding errors: in all comparisons, by less than 1e-15.
BACKENDS = ("pycocotools", "hotcoco", "faster_coco_eval")
PACKAGES = {"hotcoco": "hotcoco", "faster_coco_eval": '"mixdet[fast-eval]"'}  # for pip install

_forked_with_hotcoco = False


def load_backend(backend: str) -> tuple[type, type]:
    """Import the backend of an evaluation.

    hotcoco keeps its threads. They do not exist in a process that was forked after hotcoco was
    imported, and an evaluation there would wait for them forever. There, pycocotools is returned
    instead, which gives the same results.

    Args:
        backend: One of `BACKENDS`.

    Returns:
        The class of the evaluator, and the class `COCO` of the annotations that it takes.

    Raises:
        MixDetError: The backend is unknown or not installed.
    """
    if backend not in BACKENDS:
        raise MixDetError(
            f"backend={backend!r} of the COCO metric is unknown: use one of {BACKENDS}"
        )
    try:
        if backend == "hotcoco" and not _forked_with_hotcoco:
            import hotcoco

            return hotcoco.COCOeval, hotcoco.COCO
        if backend == "faster_coco_eval":
            import faster_coco_eval as faster

            return faster.COCOeval_faster, faster.COCO
    except ImportError as error:
        raise MixDetError(
            f'backend="{backend}" needs another package: pip install {PACKAGES[backend]}'
        ) from error
    return COCOeval, COCO


def make_evaluator(
    truth: COCO,
    detections: Sequence[dict[str, Any]] | DetectionArrays,
    category_ids: Iterable[int | str] | None = None,
    image_ids: Iterable[int | str] | None = None,
    backend: str = BACKENDS[0],
) -> Any:
    """Make a backend's evaluator of boxes. Only the given categories and images are evaluated.

    Args:
        truth: See `mixdet.evaluation.score_boxes`.
        detections: See `mixdet.evaluation.score_boxes`.
        category_ids: See `mixdet.evaluation.score_boxes`.
        image_ids: See `mixdet.evaluation.score_boxes`.
        backend: See `mixdet.evaluation.score_boxes`.

    Returns:
        The evaluator. Its method `evaluate` has not been called yet.

    Raises:
        MixDetError: See `mixdet.evaluation.score_boxes`.
    """
    evaluator_class, coco_class = load_backend(backend)
    detections = check_detections(truth, detections)
    images = sorted_ids(truth.imgs if image_ids is None else image_ids)
    categories = sorted_ids(truth.cats if category_ids is None else category_ids)
    ids = images, categories
    objects, found = _objects(truth).numbered(*ids), _found(detections).numbered(*ids)
    counts = len(images), len(categories)
    with contextlib.redirect_stdout(io.StringIO()):
        if hasattr(coco_class, "from_arrays"):
            pair = _hotcoco_pair(coco_class, *counts, objects, found)
        else:
            pair = [index(_content(*counts, boxes), coco_class) for boxes in (objects, found)]
        return evaluator_class(*pair, "bbox")


def sorted_ids(ids: Iterable[int | str]) -> list[int | str]:
    """Return the ids in ascending order and without duplicates. Numbers come before text."""
    return sorted(set(ids), key=lambda number: (isinstance(number, str), number))


def index(content: dict[str, Any], coco_class: type = COCO) -> Any:
    """Return a `COCO` object of a backend, and hide what pycocotools prints."""
    coco = coco_class()
    coco.dataset = content
    with contextlib.redirect_stdout(io.StringIO()):
        coco.createIndex()
    return coco


@dataclass(frozen=True)
class _Boxes:
    """Objects or detections. The columns have one entry per box.

    Attributes:
        image: Ids of the images, or their numbers from 1.
        category: Ids of the categories, or their numbers from 1.
        bbox: (n, 4) float64, (x, y, width, height).
        area: (n,) float64.
        iscrowd: (n,) 0 or 1.
        score: (n,) float64, or None for objects.
    """

    image: Sequence[int | str] | np.ndarray
    category: Sequence[int | str] | np.ndarray
    bbox: np.ndarray
    area: np.ndarray
    iscrowd: np.ndarray
    score: np.ndarray | None = None

    def numbered(self, images: Sequence[int | str], categories: Sequence[int | str]) -> _Boxes:
        """Number the ids from 1 in the given order. Leave out the boxes of other ids."""
        image, category = (
            _numbers(own, given)
            for own, given in ((self.image, images), (self.category, categories))
        )
        kept = (image > 0) & (category > 0)
        columns = image, category, self.bbox, self.area, self.iscrowd, self.score
        return _Boxes(*(column if column is None else column[kept] for column in columns))


def _numbers(ids: Sequence[int | str], given: Sequence[int | str]) -> np.ndarray:
    """Return the place of each id in `given`, counted from 1, or 0 if it is not there."""
    number_of = {name: number for number, name in enumerate(given, 1)}
    return np.fromiter(map(number_of.get, ids, repeat(0)), np.int64, len(ids))


def _objects(truth: COCO) -> _Boxes:
    annotations = list(truth.dataset["annotations"])
    ids = ([box[key] for box in annotations] for key in ("image_id", "category_id"))
    bbox = np.array([box["bbox"] for box in annotations], float).reshape(-1, 4)
    area = np.array([box["area"] for box in annotations], float)
    return _Boxes(*ids, bbox, area, np.array([box["iscrowd"] for box in annotations], np.int64))


def _found(detections: DetectionArrays) -> _Boxes:
    bbox = detections.boxes.copy()
    area = bbox[:, 2] * bbox[:, 3]
    bbox[area == 0, 2:] = 0
    no_crowd = np.zeros(len(bbox), np.int64)
    ids = detections.image_ids, detections.category_ids
    return _Boxes(*ids, bbox, area, no_crowd, detections.scores)


def _content(images: int, categories: int, boxes: _Boxes) -> dict[str, Any]:
    """Return the content of an annotation file."""
    names = ["image_id", "category_id", "bbox", "area", "iscrowd"]
    columns = [boxes.image, boxes.category, boxes.bbox, boxes.area, boxes.iscrowd]
    if boxes.score is not None:
        names, columns = [*names, "score"], [*columns, boxes.score]
    rows = zip(*(column.tolist() for column in columns), strict=True)
    return {
        "images": [{"id": number} for number in range(1, images + 1)],
        "categories": [{"id": number} for number in range(1, categories + 1)],
        "annotations": [
            {"id": number, **dict(zip(names, row, strict=True))}
            for number, row in enumerate(rows, 1)
        ],
    }


def _hotcoco_pair(
    coco_class: type, images: int, categories: int, objects: _Boxes, found: _Boxes
) -> tuple[Any, Any]:
    """Return hotcoco's objects for the true boxes and for the detections."""
    truth = coco_class.from_arrays(
        [{"id": number, "width": 0, "height": 0} for number in range(1, images + 1)],
        # hotcoco warns about a category without a name
        [{"id": number, "name": str(number)} for number in range(1, categories + 1)],
        objects.image,
        objects.category,
        objects.bbox,
        area=objects.area,
        iscrowd=objects.iscrowd,
    )
    # The columns of pycocotools' `loadNumpyAnnotations`
    rows = np.column_stack([found.image, found.bbox, found.score, found.category])
    return truth, truth.load_res(rows)


def _after_fork_in_child() -> None:
    global _forked_with_hotcoco
    _forked_with_hotcoco = "hotcoco" in sys.modules


if hasattr(os, "register_at_fork"):  # not on Windows, which has no fork
    os.register_at_fork(after_in_child=_after_fork_in_child)
