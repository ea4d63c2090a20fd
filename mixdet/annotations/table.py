"""The content of an annotation file as arrays."""

from __future__ import annotations

import logging
from array import array
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from mmengine.logging import print_log

from mixdet.annotations.entries import Entries
from mixdet.annotations.rules import is_id, is_number, shown, unusable, unusable_ids

# Whole numbers of 64 bits as an array of the type "q", or any other values as a list. The items of
# both are Python objects, with the type that they have in the file.
Column = array | list

_said: set[str] = set()


@dataclass(frozen=True)
class ImageColumns:
    """The m images of an annotation file. A field that an image lacks is None.

    Attributes:
        ids: (m,) ids.
        names: (m,) file names.
        widths: (m,) widths in pixels, as they are stated.
        heights: (m,) heights in pixels, as they are stated.
    """

    ids: Column
    names: list[str]
    widths: Column
    heights: Column

    def __len__(self) -> int:
        return len(self.ids)

    @cached_property
    def sizes(self) -> np.ndarray:
        """(m, 2) width and height in pixels. NaN if they are no numbers."""
        return np.stack([_numbers(self.widths), _numbers(self.heights)], axis=1)

    def entry(self, index: int) -> dict[str, Any]:
        """Return an image as COCO's dict with `id`, `file_name`, `width` and `height`."""
        width, height = self.widths[index], self.heights[index]
        name = self.names[index]
        return {"id": self.ids[index], "file_name": name, "width": width, "height": height}


@dataclass(frozen=True)
class Objects:
    """The k normalized annotations of a file, as the docstring of the package says.

    Attributes:
        index: (k,) index of each annotation in the file.
        ids: (k,) ids, which are different whole numbers above 0.
        image: (k,) index of the image of each box.
        category: (k,) index of the category of each box.
        boxes: (k, 4) boxes, (x, y, width, height) in pixels.
        areas: (k,) areas in square pixels, above 0.
        crowd: (k,) whether each box is neither an object nor background.
    """

    index: np.ndarray
    ids: Column
    image: np.ndarray
    category: np.ndarray
    boxes: np.ndarray
    areas: np.ndarray
    crowd: np.ndarray

    def __len__(self) -> int:
        return len(self.index)

    @cached_property
    def by_image(self) -> np.ndarray:
        """(k,) indices of the boxes in the order of their images."""
        return np.argsort(self.image, kind="stable")


@dataclass(frozen=True)
class AnnotationTable:
    """An annotation file with m images and n annotations, unchanged.

    Attributes:
        name: Name of the file in messages.
        images: The images.
        categories: The category entries.
        ids: (n,) ids of the annotations.
        image_ids: (n,) the `image_id` of each annotation.
        category_ids: (n,) the `category_id` of each annotation.
        boxes: (n, 4) the `bbox` of each annotation, (x, y, width, height) in pixels. NaN if it is
            not four finite numbers.
        areas: (n,) the `area` of each annotation. NaN if it is missing.
        iscrowd: (n,) whether `iscrowd` is set.
        ignore: (n,) whether `ignore` is set.
        faults: For the index of each unusable annotation, what is wrong with it.
        entries: The annotations as dicts with all their fields.
    """

    name: str
    images: ImageColumns
    categories: list[dict]
    ids: Column
    image_ids: Column
    category_ids: Column
    boxes: np.ndarray
    areas: np.ndarray
    iscrowd: np.ndarray
    ignore: np.ndarray
    faults: dict[int, str]
    entries: Entries

    def __len__(self) -> int:
        return len(self.ids)

    @cached_property
    def image(self) -> np.ndarray:
        """(n,) index of the image of each annotation, -1 if it is not in the file."""
        return positions(self.images.ids, self.image_ids)

    @cached_property
    def category(self) -> np.ndarray:
        """(n,) index of the category of each annotation, -1 if it is not in the file."""
        return positions(column([entry.get("id") for entry in self.categories]), self.category_ids)

    @cached_property
    def is_flat(self) -> np.ndarray:
        """(n,) whether a box has a width or a height that is not above 0."""
        return (self.boxes[:, 2:] <= 0).any(1)

    @cached_property
    def lacks_area(self) -> np.ndarray:
        """(n,) whether the width times the height of a box takes the place of its area."""
        return ~(self.areas > 0) & ~self.is_flat & self.is_usable

    @cached_property
    def is_usable(self) -> np.ndarray:
        """(n,) whether an annotation has no fault."""
        usable = np.ones(len(self), bool)
        usable[list(self.faults)] = False
        return usable

    @cached_property
    def objects(self) -> Objects:
        """The normalized annotations, as the docstring of the package says.

        All changes are logged as one warning. A process does not repeat the same warning.

        Raises:
            MixDetError: The ids of images or categories are unusable, or an annotation is.
        """
        self._refuse_unusable_ids("images", self.images.ids)
        self._refuse_unusable_ids("categories", [entry.get("id") for entry in self.categories])
        if self.faults:
            index, fault = next(iter(self.faults.items()))
            more = f"; {len(self.faults)} such annotations" if len(self.faults) > 1 else ""
            raise unusable(f"annotations[{index}].{fault}{more}", self.name)
        known = (self.image >= 0) & (self.category >= 0)
        index = np.flatnonzero(known & ~self.is_flat)
        boxes = self.boxes[index]
        ids = _take(self.ids, index)
        renumber = _has_unusable_ids(ids)
        self._say_changes(int((~known & ~self.is_flat).sum()), renumber)
        return Objects(
            index=index,
            ids=array("q", range(1, len(index) + 1)) if renumber else ids,
            image=self.image[index],
            category=self.category[index],
            boxes=boxes,
            areas=np.where(self.areas[index] > 0, self.areas[index], boxes[:, 2] * boxes[:, 3]),
            crowd=(self.iscrowd | self.ignore)[index],
        )

    def refuse_unusable_sizes(self) -> None:
        """Raise a `MixDetError` if the width or the height of an image is not a number."""
        for key, values in (("width", self.images.widths), ("height", self.images.heights)):
            wrong = np.flatnonzero(np.isnan(_numbers(values)))
            if len(wrong):
                value = shown(values[wrong[0]])
                fault = f"images[{wrong[0]}].{key}: a number of pixels expected, got {value}"
                raise unusable(fault, self.name)

    def _refuse_unusable_ids(self, kind: str, ids: Column) -> None:
        if isinstance(ids, array) and not has_repeated(ids):
            return
        first: dict[Any, int] = {}
        for index, number in enumerate(ids):
            place = f"{kind}[{index}].id"
            if not is_id(number):
                fault = f"{place}: a number or text expected, got {shown(number)}"
                raise unusable(fault, self.name)
            if first.setdefault(number, index) != index:
                fault = f"{place}: {shown(number)} is also the id of {kind}[{first[number]}]"
                raise unusable(f"{fault}; give every entry its own id", self.name)

    def _say_changes(self, unknown: int, renumber: bool) -> None:
        """Log what was changed in one line, unless this line was logged before."""
        changes = [
            f"{count:,} {what}"
            for count, what in (
                (self.lacks_area.sum(), "without an area above 0 (width times height is taken)"),
                (
                    (self.ignore & ~self.is_flat).sum(),
                    "marked `ignore` (neither object nor background in training, neither counted "
                    "nor punished in evaluation)",
                ),
                (
                    self.is_flat.sum(),
                    "with a width or a height that is not above 0 (left out)",
                ),
                (unknown, "of an image or a category that is not in the file (left out)"),
            )
            if count
        ]
        if renumber:
            changes.append("ids that are repeated or not whole numbers above 0 (all numbered anew)")
        line = f"{self.name}: annotations {'; '.join(changes)}"
        if changes and line not in _said:
            _said.add(line)
            print_log(line, logger="current", level=logging.WARNING)


def column(values: list) -> Column:
    """Return the values as an array if all are whole numbers of 64 bits, otherwise unchanged."""
    if all(type(value) is int for value in values):
        try:
            return array("q", values)
        except OverflowError:
            pass
    return values


def positions(ids: Column, values: Column) -> np.ndarray:
    """Return (n,) the index in `ids` of each of n values, or -1. The last of equal ids counts."""
    if not isinstance(ids, array) or not isinstance(values, array):
        index_of = {number: index for index, number in enumerate(ids)}
        return np.array([index_of.get(value, -1) for value in values], np.int64)
    if not ids:
        return np.full(len(values), -1)
    ids, values = np.asarray(ids), np.asarray(values)
    order = np.argsort(ids, kind="stable")
    found = np.searchsorted(ids[order], values, side="right") - 1
    index = order[found]
    return np.where((found >= 0) & (ids[index] == values), index, -1)


def has_repeated(ids: array) -> bool:
    """Tell whether a number occurs more than once."""
    ordered = np.sort(np.asarray(ids))  # np.unique is slower
    return bool((ordered[1:] == ordered[:-1]).any())


def _take(values: Column, index: np.ndarray) -> Column:
    if isinstance(values, array):
        return array("q", np.asarray(values)[index].tobytes())
    return [values[i] for i in index]


def _has_unusable_ids(ids: Column) -> bool:
    if not isinstance(ids, array):
        return bool(unusable_ids(ids))
    return has_repeated(ids) or bool((np.asarray(ids) <= 0).any())


def _numbers(values: Column) -> np.ndarray:
    """Return the values as floats. NaN for values that are no finite numbers."""
    if isinstance(values, array):
        return np.asarray(values).astype(float)
    return np.array([value if is_number(value) else np.nan for value in values], float)
