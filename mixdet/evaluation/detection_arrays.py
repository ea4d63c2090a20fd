"""Detections of many images in arrays, checked before any evaluator reads them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from pycocotools.coco import COCO
from torch import Tensor

from mixdet.errors import MixDetError, one_line


@dataclass(frozen=True)
class DetectionArrays:
    """Detections of many images, with one entry per box in every column.

    Attributes:
        image_ids: (n,) the id of each box's image.
        category_ids: (n,) the id of each box's category.
        boxes: (n, 4) float64, (x, y, width, height) in pixels of the original image.
        scores: (n,) float64.
    """

    image_ids: Sequence[int | str]
    category_ids: Sequence[int | str]
    boxes: np.ndarray
    scores: np.ndarray

    def __len__(self) -> int:
        return len(self.scores)

    @classmethod
    def from_results(cls, results: Sequence[dict[str, Any]]) -> DetectionArrays:
        """Read detections in COCO's results format.

        Raises:
            MixDetError: A detection lacks a key, or its `bbox` or `score` is not made of numbers.
        """
        try:
            numbers = np.array([(*result["bbox"], result["score"]) for result in results])
            numbers = numbers if numbers.size else np.zeros((0, 5))
            if numbers.ndim != 2 or numbers.shape[1] != 5 or numbers.dtype.kind not in "iuf":
                raise ValueError("a bbox or a score has other values")
            ids = [[result[key] for result in results] for key in ("image_id", "category_id")]
            for column in ids:
                set(column)  # raises a TypeError for an id that is a list or a dict
            return cls(*ids, numbers[:, :4].astype(float), numbers[:, 4].astype(float))
        except (KeyError, TypeError, ValueError) as error:
            raise MixDetError(
                f"detections: not in COCO's results format ({one_line(error)}): give every "
                "detection an image_id, a category_id, a bbox of four numbers and a score"
            ) from error

    @classmethod
    def from_images(
        cls,
        images: Iterable[tuple[int | str, Tensor, Tensor, Tensor]],
        category_ids: Sequence[int | str],
    ) -> DetectionArrays:
        """Join the detections of single images.

        Args:
            images: For each image: its id, boxes (n, 4) as (x1, y1, x2, y2) in pixels of the
                original image, scores (n,) and labels (n,).
            category_ids: The category id of each label.
        """
        columns = [(torch.zeros(0, 4), torch.zeros(0), torch.zeros(0, dtype=torch.long))]
        image_ids: list[int | str] = []
        for image_id, *image_columns in images:
            columns.append(tuple(image_columns))
            image_ids += [image_id] * len(image_columns[1])
        boxes, scores, labels = (torch.cat(column) for column in zip(*columns, strict=True))
        xywh, scores = boxes.double().numpy(), scores.double().numpy()
        xywh[:, 2:] -= xywh[:, :2]
        return cls(image_ids, [category_ids[label] for label in labels.tolist()], xywh, scores)

    def as_results(self) -> list[dict[str, Any]]:
        """Return the detections in COCO's results format."""
        columns = (self.image_ids, self.category_ids, self.boxes.tolist(), self.scores.tolist())
        return [
            {"image_id": image_id, "category_id": category_id, "bbox": box, "score": score}
            for image_id, category_id, box, score in zip(*columns, strict=True)
        ]


def check_detections(
    truth: COCO, detections: Sequence[dict[str, Any]] | DetectionArrays
) -> DetectionArrays:
    """Refuse a detection that is malformed, not finite, or of an unknown image or category.

    The evaluators would misread or ignore such a detection without an error.

    Args:
        truth: The annotations, from `mixdet.evaluation.load_coco`.
        detections: The detections, as a list in COCO's results format or as arrays.

    Returns:
        The detections in arrays.

    Raises:
        MixDetError: A detection has a number that is not finite, or an image or a category that is
            not in the file, or is not in COCO's results format.
    """
    if not isinstance(detections, DetectionArrays):
        detections = DetectionArrays.from_results(detections)
    finite = np.isfinite(detections.boxes).all(1) & np.isfinite(detections.scores)
    if not finite.all():
        first = int(np.argmin(finite))
        raise MixDetError(
            f"{np.count_nonzero(~finite)} detections are not finite (first: image "
            f"{detections.image_ids[first]}, bbox {detections.boxes[first].tolist()}, score "
            f"{detections.scores[first]}): the network computes NaN or infinity: check its "
            "weights, and the loss in the log of its training"
        )
    for key, ids, known in (
        ("image_id", detections.image_ids, truth.imgs),
        ("category_id", detections.category_ids, truth.cats),
    ):
        unknown = set(ids) - known.keys()
        if unknown:
            raise MixDetError(
                f"detections have the {key} {min(unknown, key=str)!r}, which is not in the "
                "annotation file: give the annotation file that belongs to the detections"
            )
    return detections
