"""The `data_list` of a COCO data set, which makes the dict of an image when it is asked for."""

from __future__ import annotations

import copy
import os.path
from collections.abc import Sequence
from typing import Any

import numpy as np

from mixdet.annotations.table import AnnotationTable


class CocoInfos(Sequence):
    """The dicts that mmdet's `CocoDataset.parse_data_info` makes, one for each of m images.

    Only arrays are kept, so the workers of a data loader share them. An object of this class does
    not change.

    Args:
        table: The annotation file.
        label_of: The label of each category id that the data set uses.
        data_prefix: `img`, the folder of the images, and optionally `seg`, that of semantic maps.
        seg_map_suffix: The suffix of semantic maps.
        more: Items that the dict of every image contains.

    Raises:
        MixDetError: The file cannot be used.

    Attributes:
        ids: (m,) ids of the images.
        sizes: (m, 2) width and height in pixels of the images.
        with_objects: (m,) whether an image has an annotation of the used categories.
    """

    def __init__(
        self,
        table: AnnotationTable,
        label_of: dict[Any, int],
        data_prefix: dict[str, str],
        seg_map_suffix: str,
        more: dict[str, Any],
    ) -> None:
        objects = table.objects
        table.refuse_unusable_sizes()
        labels = np.array([label_of.get(entry["id"], -1) for entry in table.categories], np.int32)
        label = labels[objects.category] if len(objects) else np.zeros(0, np.int32)
        used = objects.by_image[_is_used(objects, table.images.sizes, label)[objects.by_image]]
        starts = np.searchsorted(objects.image[used], np.arange(len(table.images) + 1))
        with_objects = np.zeros(len(table.images), bool)
        with_objects[objects.image[label >= 0]] = True

        self._images, self._entries, self._more = table.images, table.entries, more
        self._prefix, self._seg_map_suffix = data_prefix, seg_map_suffix
        self._objects, self._label, self._used, self._starts = objects, label, used, starts
        self._with_objects = with_objects
        self._chosen = np.arange(len(table.images))

    def __len__(self) -> int:
        return len(self._chosen)

    def __getitem__(self, index: int | slice) -> dict | CocoInfos:
        if isinstance(index, slice):
            return self.select(np.arange(len(self))[index])
        return self.info(index)

    # The dicts are made anew, and the arrays do not change, so a copy can share them.
    def __deepcopy__(self, memo: dict) -> CocoInfos:
        return self

    @property
    def ids(self) -> list:
        """(m,) ids of the images."""
        return [self._images.ids[image] for image in self._chosen]

    @property
    def paths(self) -> list[str]:
        """(m,) paths of the images."""
        names, folder = self._images.names, self._prefix["img"]
        return [os.path.join(folder, names[image]) for image in self._chosen]  # noqa: PTH118

    @property
    def sizes(self) -> np.ndarray:
        """(m, 2) width and height in pixels of the images."""
        return self._images.sizes[self._chosen]

    @property
    def with_objects(self) -> np.ndarray:
        """(m,) whether an image has an annotation of the used categories, crowds included."""
        return self._with_objects[self._chosen]

    def select(self, indices: Sequence[int] | np.ndarray) -> CocoInfos:
        """Return some of the images, in the order of their indices."""
        selected = object.__new__(CocoInfos)
        selected.__dict__ |= self.__dict__
        selected._chosen = self._chosen[np.asarray(indices, np.int64)]
        return selected

    def info(self, index: int, masks: bool = True) -> dict[str, Any]:
        """Return the dict of an image, as mmdet's `parse_data_info` does.

        Args:
            index: The index of the image.
            masks: Whether to read the polygons and run-length codes, which stay in the file.
        """
        image = int(self._chosen[index])
        name = self._images.names[image]
        seg_map = self._prefix.get("seg")
        if seg_map:
            stem = name.rsplit(".", 1)[0]
            seg_map = os.path.join(seg_map, stem + self._seg_map_suffix)  # noqa: PTH118
        used = self._used[self._starts[image] : self._starts[image + 1]]
        instances = [
            {"ignore_flag": int(ignored), "bbox": box, "bbox_label": label}
            for ignored, box, label in zip(
                self._objects.crowd[used].tolist(),
                _corners(self._objects.boxes[used]).tolist(),
                self._label[used].tolist(),
                strict=True,
            )
        ]
        if masks and instances:
            entries = self._entries.read(self._objects.index[used].tolist())
            for instance, entry in zip(instances, entries, strict=True):
                if entry.get("segmentation"):
                    instance["mask"] = entry["segmentation"]
        return {
            "img_path": os.path.join(self._prefix["img"], name),  # noqa: PTH118
            "img_id": self._images.ids[image],
            "seg_map_path": seg_map or None,
            "height": self._images.heights[image],
            "width": self._images.widths[image],
            **copy.deepcopy(self._more),
            "instances": instances,
        }

    def labels(self, index: int) -> list[int]:
        """Return the labels of the instances of an image."""
        image = int(self._chosen[index])
        return self._label[self._used[self._starts[image] : self._starts[image + 1]]].tolist()

    def boxes(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Return all n instances of the images, in their order.

        Returns:
            (n,) index of the image, (n, 4) boxes (x1, y1, x2, y2) in pixels, (n,) labels, and (n,)
            whether each is neither an object nor background.
        """
        starts, counts = self._starts[self._chosen], np.diff(self._starts)[self._chosen]
        image = np.repeat(np.arange(len(self)), counts)
        first = np.cumsum(counts) - counts
        used = self._used[np.arange(len(image)) + np.repeat(starts - first, counts)]
        objects = self._objects
        return image, _corners(objects.boxes[used]), self._label[used], objects.crowd[used]


def _is_used(objects, sizes: np.ndarray, label: np.ndarray) -> np.ndarray:
    """Return (k,) whether mmdet's `CocoDataset` uses each box.

    It leaves out boxes that are wholly outside their image or less than a pixel wide or high.
    """
    x, y, width, height = objects.boxes.T
    image_width, image_height = sizes[objects.image].T
    inside_width = np.minimum(x + width, image_width) - np.maximum(x, 0)
    inside_height = np.minimum(y + height, image_height) - np.maximum(y, 0)
    inside = inside_width.clip(0) * inside_height.clip(0) > 0
    return (label >= 0) & inside & (objects.areas > 0) & (width >= 1) & (height >= 1)


def _corners(boxes: np.ndarray) -> np.ndarray:
    """Convert boxes (n, 4) from (x, y, width, height) to (x1, y1, x2, y2)."""
    return np.hstack([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]])
