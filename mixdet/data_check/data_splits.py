"""The data sets of a config, with the unchanged content of their annotation files."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from mmdet.datasets import CocoDataset
from mmdet.registry import DATASETS
from mmengine.config import Config
from mmengine.registry import Registry

from mixdet.annotations.reading import read_table
from mixdet.annotations.table import AnnotationTable, ImageColumns
from mixdet.config.data_paths import LOADERS, with_annotations
from mixdet.data_check.class_name_checks import malformed_classes
from mixdet.data_check.data_problems import SPLIT_NAMES
from mixdet.datasets import SafeCocoDataset
from mixdet.images import ImageLimits


@dataclass
class Split:
    """A data set of a config.

    Attributes:
        name: `training`, `validation` or `test`. If several loaders use the same data, their names
            are joined, as in `validation, test`.
        ann_file: Path of the annotation file.
        root: Folder of the images, or None if they are not on a local disk.
        classes: Class names in the config. If the config has none, the class names of the data
            set's Python class, such as the 80 classes of `CocoDataset`.
        limits: Limits on the bytes and pixels of an image file.
        table: The annotation file, with m images and n annotations.
        is_normalized: Whether the data set replaces missing or unusual fields when it reads the
            file, as `SafeCocoDataset` does by `mixdet.annotations`. mmdet's own data sets do not.
    """

    name: str
    ann_file: str
    root: str | None
    classes: tuple[str, ...]
    limits: ImageLimits
    table: AnnotationTable
    is_normalized: bool = True

    @property
    def is_training(self) -> bool:
        """Whether a detector is trained on these data."""
        return self.name.startswith("training")

    @property
    def images(self) -> ImageColumns:
        """The images."""
        return self.table.images

    @cached_property
    def category_names(self) -> list[str]:
        """The names of the categories. Names that are not strings are converted to strings."""
        return [str(category.get("name")) for category in self.table.categories]

    @cached_property
    def labels(self) -> np.ndarray:
        """(n,) index of each annotation's class in `classes`, or -1 if it has none of them."""
        label_of = {name: label for label, name in enumerate(self.classes)}
        labels = [label_of.get(name, -1) for name in self.category_names]
        return np.array([*labels, -1])[self.table.category]  # the category -1 takes the last

    @property
    def boxes(self) -> np.ndarray:
        """(n, 4) unchanged `bbox` of each annotation. If it is not four finite numbers, NaN."""
        return self.table.boxes

    @cached_property
    def sizes(self) -> np.ndarray:
        """(n, 2) width and height in pixels of each annotation's image. NaN if unknown."""
        return np.vstack([self.images.sizes, [np.nan, np.nan]])[self.table.image]

    @cached_property
    def crowd(self) -> np.ndarray:
        """(n,) whether each annotation is neither an object nor background."""
        return self.table.iscrowd | self.table.ignore

    def path(self, image: int) -> str | None:
        """Return the path of an image file, or None if the root or the file name is unknown.

        Args:
            image: The index of the image, or -1 for an unknown one.
        """
        name = self.images.names[image] if image >= 0 else None
        if self.root is None or not isinstance(name, str):
            return None
        return str(Path(self.root, name))


def read_splits(cfg: Config, loaders: tuple[str, ...] = LOADERS) -> list[Split]:
    """Read the annotation files of a config.

    If several loaders use the same data, the data are read once and become one split. Data sets
    that are not a `CocoDataset`, are not on a local disk, or have malformed classes are left out.

    Args:
        cfg: The config.
        loaders: Names of the data loaders to read.

    Raises:
        MixDetError: An annotation file is missing or is not in COCO's format.
    """
    splits: dict[tuple, Split] = {}
    for key_path, dataset in with_annotations(cfg, loaders):
        dataset_class = registered(DATASETS, dataset["type"])
        name = SPLIT_NAMES[key_path.partition(".")[0]]
        data_root = dataset.get("data_root") or ""
        prefix = (dataset.get("data_prefix") or {}).get("img", "")
        ann_file, images = (_join(data_root, part) for part in (dataset["ann_file"], prefix))
        if is_remote(dataset) or not issubclass(dataset_class, CocoDataset):
            continue
        if malformed_classes(dataset.get("metainfo")):
            continue
        if getattr(dataset_class, "makes_its_data", False) and not Path(ann_file).is_file():
            continue  # the file is written later, when the run builds the data set
        classes = tuple(dataset_class._load_metainfo(dataset.get("metainfo")).get("classes", ()))
        key = (ann_file, images, classes)
        if key in splits:
            if name not in splits[key].name:
                splits[key].name += f", {name}"
            continue
        table = read_table(ann_file)
        root = None if "://" in images else images
        is_normalized = issubclass(dataset_class, SafeCocoDataset)
        limits = image_limits(dataset)
        splits[key] = Split(name, ann_file, root, classes, limits, table, is_normalized)
    return list(splits.values())


def registered(registry: Registry, name: str | type) -> type:
    """Return the class that a config gives as `type`, by its name or as the class itself.

    If no class of this name is registered, return `object`.
    """
    return name if isinstance(name, type) else registry.get(name) or object


def is_remote(dataset: dict) -> bool:
    """Tell whether the annotation file of a data set is not on a local disk."""
    path = f"{dataset.get('data_root') or ''}{dataset.get('ann_file') or ''}"
    return dataset.get("backend_args") is not None or "://" in path


def image_limits(dataset: dict) -> ImageLimits:
    """Return the image limits of a data set's config."""
    keys = ("max_bytes", "max_pixels")
    return ImageLimits(**{key: dataset[key] for key in keys if key in dataset})


def _join(root: str, part: str) -> str:
    """Join paths as mmengine's data sets do: the root is not added to absolute paths and URLs."""
    if not root or "://" in part or Path(part).is_absolute():
        return part
    return f"{root.rstrip('/')}/{part}"
