"""A COCO box metric for mmengine's evaluator."""

from __future__ import annotations

import importlib.util
import itertools
import json
import logging
import math
from collections.abc import Sequence
from pathlib import Path

import torch
from mmdet.registry import METRICS
from mmengine.evaluator import BaseMetric
from mmengine.logging import MessageHub, print_log
from torch import Tensor

from mixdet.evaluation.coco_scores import (
    STATS,
    BoxScores,
    class_metric_names,
    pause_garbage_collection,
)
from mixdet.evaluation.detection_arrays import DetectionArrays
from mixdet.evaluation.evaluators import BACKENDS, load_backend
from mixdet.evaluation.scored_data import ScoredData


@METRICS.register_module()
class CocoDetectionMetric(BaseMetric):
    """The 12 COCO metrics for boxes, with exactly the values that pycocotools computes.

    mmdet's `CocoMetric` evaluates with 100, 300 and 1000 boxes per image and rounds to 3 digits.
    This class uses pycocotools' own limits of 1, 10 and 100 boxes. The metrics are `coco/bbox_mAP`,
    `coco/bbox_mAP_50`, `_75`, `_s`, `_m` and `_l`, and `coco/AR_1`, `AR_10`, `AR_100`, `AR_s_100`,
    `AR_m_100` and `AR_l_100`. A metric is -1 if the data contain no object for it. Only images that
    the model was applied to are evaluated. If the annotation file contains more images, a warning
    says so.

    Args:
        ann_file: Annotation file in COCO's format. The metric reads it at the first batch, since
            some data sets write the file when they are loaded.
        results_file: File for the detections in COCO's results format, with boxes as
            (x, y, width, height) in pixels of the original image. None writes no file.
        classwise: Also return `coco/AP/<class>` and `coco/AP50/<class>` for every class (see
            `class_metric_names`). The attribute `scores` always contains these values.
        backend: 'pycocotools', or 'hotcoco', which gives the same results to the last bit in less
            time, or 'faster_coco_eval' (an extra package), which differs by rounding errors. By
            default it is hotcoco for the validations of a training, and pycocotools for a test.
        backend_args: Arguments of mmengine's file backend, for `ann_file`.
        collect_device: The argument of mmengine's `BaseMetric`.
        prefix: Prefix of the metrics' names, by default `coco`.

    Raises:
        MixDetError: The backend is unknown or not installed.

    Attributes:
        scores: The latest results, on the main process. None before the first evaluation.
        scored: The annotations, the classes and the images that `scores` are computed from.
    """

    default_prefix = "coco"

    def __init__(
        self,
        ann_file: str,
        results_file: str | None = None,
        classwise: bool = False,
        backend: str | None = None,
        backend_args: dict | None = None,
        collect_device: str = "cpu",
        prefix: str | None = None,
    ) -> None:
        super().__init__(collect_device=collect_device, prefix=prefix)
        if backend is not None:
            load_backend(backend)  # raise an error now, not after hours of training
        self.ann_file = ann_file
        self.results_file = results_file
        self.classwise = classwise
        self.backend = backend
        self.backend_args = backend_args
        self.scores: BoxScores | None = None
        self.scored: ScoredData | None = None
        self._truth: ScoredData | None = None

    @property
    def names(self) -> list[str]:
        """The names of the metrics, without the prefix."""
        classes = (self.dataset_meta or {}).get("classes", ()) if self.classwise else ()
        per_class = (class_metric_names(classes, metric).values() for metric in ("AP", "AP50"))
        return [*STATS, *itertools.chain(*per_class)]

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:
        """Store the detections of a batch.

        Args:
            data_batch: Not used.
            data_samples: One dict per image, with `img_id` and `pred_instances`. The instances have
                `bboxes` (N, 4), which are (x1, y1, x2, y2) in pixels of the original image,
                `scores` (N,) and `labels` (N,).
        """
        if self._truth is None:
            self._truth = ScoredData.read(
                self.ann_file, self.dataset_meta["classes"], backend_args=self.backend_args
            )
        for sample in data_samples:
            predicted = sample["pred_instances"]
            columns = (predicted[name] for name in ("bboxes", "scores", "labels"))
            # Copy, since a column may be a view that keeps the tensor of all candidates in memory.
            copies = (torch.as_tensor(column).to("cpu", copy=True) for column in columns)
            self.results.append((sample["img_id"], *copies))

    @pause_garbage_collection()
    def compute_metrics(
        self, results: list[tuple[int, Tensor, Tensor, Tensor]]
    ) -> dict[str, float]:
        """Write the results file and compute the metrics.

        Args:
            results: Image id, boxes, scores and labels of every image, as `process` stores them.

        Returns:
            The metrics by name, without the prefix.
        """
        detections = DetectionArrays.from_images(results, self._truth.category_ids)
        if self.results_file is not None:
            path = Path(self.results_file)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(detections.as_results()))
        self.scored = self._truth.subset(image_id for image_id, *_ in results)
        images, all_images = len(self.scored.image_ids), len(self._truth.image_ids)
        if images < all_images:
            self._warn(f"evaluated on {images} of the {all_images} images in {self.ann_file}")
        if not self.scored.has_objects:
            self._warn(
                f"{self.ann_file} has no object of the data set's classes in the images: there is "
                "nothing to score, and every metric is -1"
            )
        self.scores = self.scored.score(detections, self.backend or _default_backend())
        metrics = dict(self.scores.stats)
        if self.classwise:
            by_class = {"AP": self.scores.per_class, "AP50": self.scores.per_class_50}
            for metric, values in by_class.items():
                names = class_metric_names(self.dataset_meta["classes"], metric)
                metrics |= {names[name]: ap for name, ap in values.items() if not math.isnan(ap)}
        return metrics

    @staticmethod
    def _warn(text: str) -> None:
        print_log(text, logger="current", level=logging.WARNING)


def _default_backend() -> str:
    """Return hotcoco in a validation, if it is installed. Otherwise return pycocotools."""
    validates = MessageHub.get_current_instance().get_info("loop_stage") == "val"
    return "hotcoco" if validates and importlib.util.find_spec("hotcoco") else BACKENDS[0]
