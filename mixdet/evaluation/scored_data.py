"""What is scored: the boxes, the classes and the images of an evaluation."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from mmengine.fileio import get_local_path
from pycocotools.coco import COCO

from mixdet.errors import MixDetError
from mixdet.evaluation.coco_scores import BoxScores, load_coco, score_boxes
from mixdet.evaluation.detection_arrays import DetectionArrays
from mixdet.evaluation.evaluators import BACKENDS


@dataclass(frozen=True)
class ScoredData:
    """The annotations, the classes and the images of an evaluation.

    The metric, the confidence intervals of a comparison, the contact sheets and the reports all use
    this class, so that they count the same boxes.

    Attributes:
        annotations: The annotations of the whole file, from `load_coco`.
        category_ids: The category id of each label.
        image_ids: Ids of the images that are scored, in the order of the file.
        ann_file: The annotation file, or None if it is not known.
    """

    annotations: COCO
    category_ids: Sequence[int | str]
    image_ids: Sequence[int | str]
    ann_file: str | None = None

    @classmethod
    def read(
        cls,
        ann_file: str | os.PathLike,
        classes: Sequence[str] | None = None,
        image_ids: Iterable[int | str] | None = None,
        backend_args: dict | None = None,
    ) -> ScoredData:
        """Read an annotation file, and map labels to category ids as mmdet's `CocoDataset` does.

        `CocoDataset` ignores categories of the file that are not classes of the data set. Label i
        is the i-th of the remaining categories. The class names are therefore right only if the
        file and the data set list the classes in the same order.

        Args:
            ann_file: The file.
            classes: Names of the classes that are scored. By default all categories of the file.
            image_ids: Ids of the images that are scored. By default all images of the file.
            backend_args: Arguments of mmengine's file backend.

        Raises:
            MixDetError: The file cannot be used. Or it lacks a class or an image, or has the
                classes in another order.
        """
        with get_local_path(os.fspath(ann_file), backend_args=backend_args) as path:
            annotations = load_coco(path, os.fspath(ann_file))
        categories = annotations.dataset["categories"]
        if classes is not None:
            categories = [category for category in categories if category.get("name") in classes]
            _check_classes(ann_file, [category["name"] for category in categories], list(classes))
        category_ids = [category["id"] for category in categories]
        data = cls(annotations, category_ids, [*annotations.imgs], os.fspath(ann_file))
        return data if image_ids is None else data.subset(image_ids)

    @property
    def classes(self) -> list[str]:
        """Names of the classes, indexed by label."""
        return [str(self.annotations.cats[number].get("name")) for number in self.category_ids]

    @property
    def images(self) -> list[dict[str, Any]]:
        """The image entries of the annotation file, in the order of `image_ids`."""
        return [self.annotations.imgs[number] for number in self.image_ids]

    @property
    def has_objects(self) -> bool:
        """Whether the images have an object that is scored. Crowds are not scored."""
        return any(
            not annotation["iscrowd"]
            for number in self.image_ids
            for annotation in self.boxes(number)
        )

    def boxes(self, image_id: int | str) -> list[dict[str, Any]]:
        """Return an image's annotations of the scored classes, crowds included."""
        annotations = self.annotations.imgToAnns.get(image_id, ())
        return [box for box in annotations if box["category_id"] in self.category_ids]

    def subset(self, image_ids: Iterable[int | str]) -> ScoredData:
        """Return the same data with fewer images.

        Raises:
            MixDetError: An image is not in the file.
        """
        chosen = set(image_ids)
        unknown = chosen - self.annotations.imgs.keys()
        if unknown:
            raise MixDetError(
                f"image {next(iter(unknown))!r} is not in the annotation file of the metric: set "
                "ann_file of the metric to the file of the data set"
            )
        images = [number for number in self.annotations.imgs if number in chosen]
        return ScoredData(self.annotations, self.category_ids, images, self.ann_file)

    def score(
        self,
        detections: Sequence[dict[str, Any]] | DetectionArrays,
        backend: str = BACKENDS[0],
    ) -> BoxScores:
        """Evaluate detections with `score_boxes`."""
        return score_boxes(self.annotations, detections, self.category_ids, self.image_ids, backend)


def _check_classes(ann_file: str | os.PathLike, names: list[str], classes: list[str]) -> None:
    if names != classes:
        missing = sorted(set(classes) - set(names))
        difference = f"lacks {', '.join(missing)}" if missing else "has another order"
        raise MixDetError(
            f"{ann_file}: the categories must be the data set's classes in the same "
            f"order, but the file {difference}: set `metainfo.classes` of the data set to the "
            "names in the file"
        )
