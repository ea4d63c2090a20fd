"""The data of a config as the check sees them: annotations as they stand in the file."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from mmdet.datasets import CocoDataset
from mmdet.registry import DATASETS
from mmengine.config import Config

from mixdet.config.data_paths import LOADERS, with_annotations
from mixdet.errors import MixDetError
from mixdet.evaluation import load_coco
from mixdet.images import ImageLimits

NAMES = dict(zip(LOADERS, ("training", "validation", "test"), strict=True))


@dataclass
class Split:
    """One data set of a config.

    Attributes:
        name: `training`, `validation`, `test`, or several of them where they share their data.
        ann_file: The annotation file.
        root: Folder of the images; None where it is not on this machine's disk.
        classes: Class names as the config, or the data set's class, has them.
        limits: What its images may take.
        content: The annotation file's `images`, `annotations` and `categories`.
    """

    name: str
    ann_file: str
    root: str | None
    classes: tuple[str, ...]
    limits: ImageLimits
    content: dict

    @property
    def trains(self) -> bool:
        """Whether a detector learns from it."""
        return self.name.startswith("training")

    @cached_property
    def images(self) -> list[dict]:
        """Entries of the images."""
        return self.content["images"]

    @cached_property
    def annotations(self) -> list[dict]:
        """Entries of the boxes."""
        return self.content["annotations"]

    @cached_property
    def categories(self) -> list[dict]:
        """Entries of the categories; a name that is no text becomes one that no class has."""
        return [{**each, "name": str(each.get("name"))} for each in self.content["categories"]]

    @cached_property
    def image_of(self) -> dict:
        """Images by id."""
        return {image.get("id"): image for image in self.images}

    @cached_property
    def name_of(self) -> dict:
        """Names of the categories by id."""
        return {category.get("id"): category.get("name") for category in self.categories}

    @cached_property
    def boxes(self) -> np.ndarray:
        """`bbox` of each annotation, (n, 4) as it stands; NaN where it is not four numbers."""
        return numbers([annotation.get("bbox") for annotation in self.annotations], 4)

    @cached_property
    def sizes(self) -> np.ndarray:
        """Width and height in pixels of each annotation's image, (n, 2); NaN where not known."""
        known = dict(zip(self.image_of, self.stated_sizes(self.image_of.values()), strict=True))
        unknown = np.full(2, np.nan)
        sizes = [known.get(annotation.get("image_id"), unknown) for annotation in self.annotations]
        return np.array(sizes, float).reshape(-1, 2)

    @staticmethod
    def stated_sizes(images) -> np.ndarray:
        """Width and height in pixels as stated, (n, 2); NaN where they are not."""
        return numbers([[image.get("width"), image.get("height")] for image in images], 2)

    def path(self, image: dict) -> str | None:
        """Where an image should lie, for an example to show."""
        name = image.get("file_name")
        known = self.root is not None and isinstance(name, str)
        return str(Path(self.root, name)) if known else None


def read_splits(cfg: Config, loaders: tuple[str, ...] = LOADERS) -> list[Split]:
    """Read the annotation files of a config; what several loaders share is read and checked once.

    Data sets that are not `CocoDataset`s, or not on a local disk, are left out.

    Args:
        cfg: The config.
        loaders: Which data loaders to look at.

    Raises:
        MixDetError: An annotation file is missing, or is not COCO's.
    """
    found: dict[tuple, Split] = {}
    for where, dataset in with_annotations(cfg, loaders):
        kind, name = DATASETS.get(dataset["type"]), NAMES[where.partition(".")[0]]
        data_root = dataset.get("data_root") or ""
        prefix = (dataset.get("data_prefix") or {}).get("img", "")
        ann_file, images = (_join(data_root, part) for part in (dataset["ann_file"], prefix))
        remote = dataset.get("backend_args") is not None or "://" in ann_file
        if remote or not issubclass(kind, CocoDataset):
            continue
        classes = tuple(kind._load_metainfo(dataset.get("metainfo")).get("classes", ()))
        key = (ann_file, images, classes)
        if key in found:
            if name not in found[key].name:
                found[key].name += f", {name}"
            continue
        content = load_coco(ann_file).dataset
        for part in ("images", "annotations", "categories"):
            if not isinstance(content.get(part), list):
                raise MixDetError(f"{ann_file}: not a COCO annotation file (no list of {part})")
        root = None if "://" in images else images
        found[key] = Split(name, ann_file, root, classes, limits_of(dataset), content)
    return list(found.values())


def limits_of(dataset: dict) -> ImageLimits:
    """The limits of a data set's config."""
    keys = ("max_bytes", "max_pixels")
    return ImageLimits(**{key: dataset[key] for key in keys if key in dataset})


def _join(root: str, part: str) -> str:
    """As mmengine's data sets do: an absolute path and an address stand for themselves."""
    whole = not root or "://" in part or Path(part).is_absolute()
    return part if whole else f"{root.rstrip('/')}/{part}"


def numbers(rows: list, width: int) -> np.ndarray:
    """Rows as floats (n, width); NaN throughout a row that is not `width` finite numbers."""
    try:
        values = np.array(rows)
    except ValueError:  # rows of different lengths
        values = None
    if values is None or values.dtype.kind not in "iuf" or values.shape != (len(rows), width):
        values = np.array([_row(row, width) for row in rows], float).reshape(-1, width)
    values = values.astype(float)
    values[~np.isfinite(values).all(1)] = np.nan
    return values


def _row(row, width: int) -> list[float]:
    fits = isinstance(row, list) and len(row) == width
    if not fits or not all(isinstance(value, (int, float)) for value in row):
        return [np.nan] * width
    try:
        return [float(value) for value in row]
    except OverflowError:  # a whole number of hundreds of digits
        return [np.nan] * width
