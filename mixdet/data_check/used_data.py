"""The images and objects that a run uses: what the data set yields after all of its filters."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from mmdet.datasets import BaseDetDataset, CocoDataset, XMLDataset
from mmdet.registry import DATASETS
from mmengine.config import Config
from mmengine.dist import is_distributed

from mixdet.data_check.data_problems import SPLIT_NAMES
from mixdet.data_check.data_splits import is_remote, registered
from mixdet.datasets.coco_infos import CocoInfos
from mixdet.errors import MixDetError, one_line
from mixdet.evaluation.coco_scores import pause_garbage_collection


@dataclass(frozen=True)
class UsedPart:
    """The images of one annotation file that a run uses.

    Attributes:
        ann_file: Path of the annotation file.
        classes: Class names of the data set.
        filters: The `filter_cfg` of the data set. It is empty in test mode, which has no filter.
        image_ids: The ids of the images.
        paths: The path of each image.
        is_tall: (m,) whether each image is higher than wide.
        image_of_box: (n,) index of the image of each box.
        boxes: (n, 4) boxes, (x1, y1, x2, y2) in pixels.
        labels: (n,) index of the class of each box.
        ignored: (n,) whether each box is neither an object nor background, such as a crowd.
    """

    ann_file: str
    classes: tuple[str, ...]
    filters: dict
    image_ids: list
    paths: list[str]
    is_tall: np.ndarray
    image_of_box: np.ndarray
    boxes: np.ndarray
    labels: np.ndarray
    ignored: np.ndarray

    @property
    def objects(self) -> dict[str, int]:
        """The number of objects of each class."""
        labels = self.labels[~self.ignored]
        counts = np.bincount(labels, minlength=len(self.classes)).tolist()
        return dict(zip(self.classes, counts, strict=True))


@dataclass
class UsedData:
    """The data that a data loader yields.

    Attributes:
        loaders: The data loaders that yield these data.
        dataset_cfg: The config of the data set.
        samples: The length of the data set, with the repetitions of wrappers like `RepeatDataset`.
        parts: The used images of each annotation file of the data set.
        error: Why the data set cannot be built, or None.
    """

    loaders: list[str]
    dataset_cfg: dict
    samples: int = 0
    parts: list[UsedPart] = field(default_factory=list)
    error: str | None = None

    @property
    def name(self) -> str:
        """`training`, `validation` or `test`, or several of them, as in `validation, test`."""
        return ", ".join(SPLIT_NAMES[loader] for loader in self.loaders)

    @property
    def is_training(self) -> bool:
        """Whether a detector is trained on these data."""
        return "train_dataloader" in self.loaders

    @property
    def image_count(self) -> int:
        """The number of images, without repetitions."""
        return sum(len(part.image_ids) for part in self.parts)

    @property
    def objects(self) -> dict[str, int]:
        """The number of objects of each class, without repetitions."""
        total: dict[str, int] = {}
        for part in self.parts:
            for name, count in part.objects.items():
                total[name] = total.get(name, 0) + count
        return total


def read_used_data(cfg: Config, loaders: tuple[str, ...]) -> list[UsedData]:
    """Build the data sets of a config without their transforms, and list what they hold.

    Loaders that have the same data set share one result. Data sets that are not on a local disk,
    and those that are neither a `CocoDataset` nor an `XMLDataset`, are left out.

    Args:
        cfg: The config.
        loaders: Names of the data loaders to read.
    """
    all_used: list[UsedData] = []
    for loader in loaders:
        dataset_cfg = (cfg.get(loader) or {}).get("dataset")
        same = next((used for used in all_used if used.dataset_cfg == dataset_cfg), None)
        if same:
            same.loaders.append(loader)
            continue
        plain_cfg = _without_transforms(dataset_cfg)
        if plain_cfg is not None:
            all_used.append(_read(UsedData([loader], dataset_cfg), plain_cfg))
    return all_used


def training_objects(cfg: Config) -> dict[str, int] | None:
    """Return the number of objects of each class that a training uses, or None if it is unknown."""
    (used, *_) = read_used_data(cfg, ("train_dataloader",)) or [None]
    return None if used is None or used.error else used.objects


@pause_garbage_collection()
def _read(used: UsedData, plain_cfg: dict) -> UsedData:
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints
            dataset = DATASETS.build(plain_cfg)
            used.samples = len(dataset)
            used.parts = [_read_part(part) for part in _parts(dataset)]
    except MixDetError as error:
        used.error = str(error)
    except Exception as error:  # invalid values raise all kinds of errors
        used.error = f"the data set cannot be built: {one_line(error)}"
    return used


def _without_transforms(dataset_cfg) -> dict | None:
    """Return the config of a data set without its transforms, or None if it cannot be checked."""
    if not isinstance(dataset_cfg, dict) or "type" not in dataset_cfg:
        return None
    plain = dict(dataset_cfg)
    if "pipeline" in plain:
        plain["pipeline"] = []
    if "datasets" in plain:
        plain["datasets"] = [_without_transforms(part) for part in plain["datasets"]]
        return None if None in plain["datasets"] else plain
    if "dataset" in plain:
        plain["dataset"] = _without_transforms(plain["dataset"])
        return None if plain["dataset"] is None else plain
    dataset_class = registered(DATASETS, plain["type"])
    if not issubclass(dataset_class, (CocoDataset, XMLDataset)) or is_remote(plain):
        return None
    if getattr(dataset_class, "makes_its_data", False) and is_distributed():
        return None  # all processes have to build this data set together
    return {**plain, "serialize_data": False, "lazy_init": False}


def _parts(dataset) -> Iterator[BaseDetDataset]:
    if hasattr(dataset, "datasets"):
        for part in dataset.datasets:
            yield from _parts(part)
    elif hasattr(dataset, "dataset"):
        yield from _parts(dataset.dataset)
    else:
        yield dataset


def _read_part(dataset: BaseDetDataset) -> UsedPart:
    infos = dataset.data_list
    if isinstance(infos, CocoInfos):
        image_ids, paths = infos.ids, infos.paths
        is_tall = infos.sizes[:, 0] < infos.sizes[:, 1]
        image_of_box, boxes, labels, ignored = infos.boxes()
    else:
        image_ids, paths = ([info[key] for info in infos] for key in ("img_id", "img_path"))
        is_tall = np.array([info["width"] < info["height"] for info in infos], bool)
        instances = [
            (index, *instance["bbox"], instance["bbox_label"], instance["ignore_flag"])
            for index, info in enumerate(infos)
            for instance in info["instances"]
        ]
        rows = np.array(instances, float).reshape(-1, 7)
        image_of_box, labels = rows[:, 0].astype(int), rows[:, 5].astype(int)
        boxes, ignored = rows[:, 1:5], rows[:, 6] > 0
    return UsedPart(
        ann_file=dataset.ann_file,
        classes=tuple(dataset.metainfo["classes"]),
        filters={} if dataset.test_mode else dict(dataset.filter_cfg or {}),
        image_ids=image_ids,
        paths=paths,
        is_tall=is_tall,
        image_of_box=image_of_box,
        boxes=boxes,
        labels=labels,
        ignored=ignored,
    )
