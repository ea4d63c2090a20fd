"""The true boxes of an annotation file, as pycocotools' `COCO`."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
from pycocotools.coco import COCO

from mixdet.annotations.table import AnnotationTable

BLOCK = 4096  # annotations that are made at once


class GroundTruth(COCO):
    """A `COCO` that keeps the annotations in arrays, and makes a dict when it is asked for.

    The dicts have the keys `id`, `image_id`, `category_id`, `bbox` (x, y, width, height) in pixels,
    `area` and `iscrowd`, with normalized values: see `mixdet.annotations`. The image entries have
    `id`, `file_name`, `width` and `height`.

    Args:
        table: The annotation file.

    Raises:
        MixDetError: The annotations cannot be used.

    Attributes:
        table: The annotation file.
    """

    def __init__(self, table: AnnotationTable) -> None:  # the properties replace COCO's attributes
        self.table = table
        self._objects = table.objects

    @cached_property
    def imgs(self) -> dict[Any, dict]:
        """The image entries by id."""
        images = self.table.images
        return {number: images.entry(index) for index, number in enumerate(images.ids)}

    @cached_property
    def cats(self) -> dict[Any, dict]:
        """The category entries by id."""
        return {category["id"]: category for category in self.table.categories}

    @cached_property
    def dataset(self) -> dict[str, Any]:
        """`images`, `categories` and `annotations`."""
        return {
            "images": list(self.imgs.values()),
            "categories": self.table.categories,
            "annotations": Annotations(self.table, np.arange(len(self._objects))),
        }

    @cached_property
    def anns(self) -> dict[int, dict]:
        """The annotations by id."""
        return {annotation["id"]: annotation for annotation in self.dataset["annotations"]}

    @cached_property
    def imgToAnns(self) -> Mapping[Any, Sequence[dict]]:
        """The annotations of each image that has any, by the id of the image."""
        return AnnotationsByImage(self.table)

    @cached_property
    def catToImgs(self) -> dict[Any, list]:
        """The id of the image of each annotation, by category."""
        images: dict[Any, list] = defaultdict(list)
        for image, category in zip(
            self._objects.image.tolist(), self._objects.category.tolist(), strict=True
        ):
            images[self.table.categories[category]["id"]].append(self.table.images.ids[image])
        return images


class Annotations(Sequence):
    """Annotations, whose dicts are made anew whenever they are read.

    Args:
        table: The annotation file.
        indices: (n,) indices of the annotations in `table.objects`.
    """

    def __init__(self, table: AnnotationTable, indices: np.ndarray) -> None:
        self._table, self._indices = table, indices

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, index: int | slice) -> dict | list[dict]:
        chosen = self._indices[index]
        if isinstance(index, slice):
            return list(Annotations(self._table, chosen))
        return next(self._dicts(np.array([chosen])))

    def __iter__(self) -> Iterator[dict]:
        for start in range(0, len(self), BLOCK):
            yield from self._dicts(self._indices[start : start + BLOCK])

    def _dicts(self, indices: np.ndarray) -> Iterator[dict]:
        objects, images, categories = (
            self._table.objects,
            self._table.images.ids,
            self._table.categories,
        )
        for index, image, category, box, area, crowd in zip(
            indices.tolist(),
            objects.image[indices].tolist(),
            objects.category[indices].tolist(),
            objects.boxes[indices].tolist(),
            objects.areas[indices].tolist(),
            objects.crowd[indices].tolist(),
            strict=True,
        ):
            yield {
                "id": objects.ids[index],
                "image_id": images[image],
                "category_id": categories[category]["id"],
                "bbox": box,
                "area": area,
                "iscrowd": int(crowd),
            }


class AnnotationsByImage(Mapping):
    """The annotations of each image that has any, by the id of the image.

    As in pycocotools, an unknown id gives an empty list.

    Args:
        table: The annotation file.
    """

    def __init__(self, table: AnnotationTable) -> None:
        objects, ids = table.objects, table.images.ids
        images, starts = np.unique(objects.image[objects.by_image], return_index=True)
        ends = [*starts.tolist(), len(objects)][1:]  # none for a file without annotations
        self._table = table
        self._spans = {
            ids[image]: span
            for image, *span in zip(images.tolist(), starts.tolist(), ends, strict=True)
        }

    def __len__(self) -> int:
        return len(self._spans)

    def __iter__(self) -> Iterator[Any]:
        return iter(self._spans)

    def __contains__(self, image_id: object) -> bool:
        return image_id in self._spans

    def __getitem__(self, image_id: Any) -> list[dict]:
        start, end = self._spans.get(image_id, (0, 0))
        return list(Annotations(self._table, self._table.objects.by_image[start:end]))
