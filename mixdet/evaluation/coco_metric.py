"""COCO box evaluation for mmengine's evaluator."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Sequence
from pathlib import Path

import torch
from mmdet.registry import METRICS
from mmengine.evaluator import BaseMetric
from mmengine.fileio import get_local_path
from mmengine.logging import print_log
from pycocotools.coco import COCO
from torch import Tensor

from mixdet.errors import MixDetError
from mixdet.evaluation.coco_scores import (
    BACKENDS,
    STATS,
    BoxScores,
    as_results,
    evaluator,
    load_coco,
    no_cycle_search,
    score_boxes,
)


@METRICS.register_module()
class CocoDetectionMetric(BaseMetric):
    """COCO's 12 box numbers: those that pycocotools gives for the written results, to the last bit.

    mmdet's `CocoMetric` evaluates with 100, 300 and 1000 boxes an image and rounds to 3 digits.
    Names: `coco/bbox_mAP`, `_50`, `_75`, `_s`, `_m`, `_l`, and `coco/AR@1`, `AR@10`, `AR@100`,
    `AR_s@100`, `AR_m@100`, `AR_l@100`; -1 where there is no such object. Evaluated are the images
    that were predicted: all of the file, unless the data set leaves some out (a warning says so).

    Args:
        ann_file: Annotation file in COCO's format. It is read at the first batch, so that a data
            set which makes its files may make them first.
        results_file: Where to write the detections as COCO results JSON, boxes as
            (x, y, width, height) in pixels of the original image. None writes nothing.
        classwise: Return `coco/AP/<class>` for every class too (`scores` has them anyway).
        backend: 'pycocotools', or 'faster_coco_eval' (an extra), which gives the same numbers
            sooner.
        backend_args: Of mmengine's file backends, for `ann_file`.
        collect_device: As in `BaseMetric`.
        prefix: Before the names, `coco` by default.

    Raises:
        MixDetError: The backend is unknown or not installed.

    Attributes:
        scores: The latest evaluation, on the main process; None before the first.
    """

    default_prefix = "coco"

    def __init__(
        self,
        ann_file: str,
        results_file: str | None = None,
        classwise: bool = False,
        backend: str = BACKENDS[0],
        backend_args: dict | None = None,
        collect_device: str = "cpu",
        prefix: str | None = None,
    ) -> None:
        super().__init__(collect_device=collect_device, prefix=prefix)
        evaluator(backend)  # not after hours of training
        self.ann_file = ann_file
        self.results_file = results_file
        self.classwise = classwise
        self.backend = backend
        self.backend_args = backend_args
        self.scores: BoxScores | None = None
        self._truth: COCO | None = None
        self._category_ids: list[int] = []

    @property
    def names(self) -> list[str]:
        """What an evaluation gives, without the prefix."""
        classes = (self.dataset_meta or {}).get("classes", ()) if self.classwise else ()
        return [*STATS, *(f"AP/{name}" for name in classes)]

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:
        """Keep the detections of a batch.

        Args:
            data_batch: Not used.
            data_samples: One an image: `img_id`, and `pred_instances` with `bboxes` (N, 4) as
                (x1, y1, x2, y2) in pixels of the original image, `scores` (N,), `labels` (N,).
        """
        if self._truth is None:
            self._load_truth()
        for sample in data_samples:
            predicted = sample["pred_instances"]
            columns = (predicted[name] for name in ("bboxes", "scores", "labels"))
            # copies: a slice would keep all candidates in memory
            copies = (torch.as_tensor(column).to("cpu", copy=True) for column in columns)
            self.results.append((sample["img_id"], *copies))

    @no_cycle_search()
    def compute_metrics(
        self, results: list[tuple[int, Tensor, Tensor, Tensor]]
    ) -> dict[str, float]:
        """Write the results file and evaluate.

        Args:
            results: Image id, boxes, scores and labels of every image, as in `process`.
        """
        detections = [
            detection
            for image_id, *columns in results
            for detection in as_results(
                image_id, *(column.tolist() for column in columns), self._category_ids
            )
        ]
        if self.results_file is not None:
            path = Path(self.results_file)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(detections))
        images = {image_id for image_id, *_ in results}
        if len(images) < len(self._truth.imgs):
            print_log(
                f"evaluated on {len(images)} of the {len(self._truth.imgs)} images in "
                f"{self.ann_file}",
                logger="current",
                level=logging.WARNING,
            )
        self.scores = score_boxes(self._truth, detections, self._category_ids, images, self.backend)
        per_class = {
            f"AP/{name}": ap for name, ap in self.scores.per_class.items() if not math.isnan(ap)
        }
        return self.scores.stats | (per_class if self.classwise else {})

    def _load_truth(self) -> None:
        """Read the annotations and map labels to category ids as `CocoDataset` does.

        Label i is the file's i-th category among the data set's classes, so the two orders must
        agree: otherwise every name that anybody prints would be wrong.
        """
        with get_local_path(self.ann_file, backend_args=self.backend_args) as path:
            truth = load_coco(path)
        classes = list(self.dataset_meta["classes"])
        found = [
            category for category in truth.dataset["categories"] if category["name"] in classes
        ]
        names = [category["name"] for category in found]
        if names != classes:
            missing = sorted(set(classes) - set(names))
            fault = f"lacks {', '.join(missing)}" if missing else "has them in another order"
            raise MixDetError(
                f"{self.ann_file}: its categories must be the data set's classes in their order, "
                f"but it {fault}: set `metainfo.classes` of the data set to the file's names"
            )
        self._truth, self._category_ids = truth, [category["id"] for category in found]
