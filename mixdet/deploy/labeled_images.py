"""Load the images and annotations of a config's data set, and score a detector on them."""

from __future__ import annotations

import contextlib
import copy
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from mmdet.registry import DATASETS
from mmengine.config import Config
from pycocotools.coco import COCO

from mixdet.config.data_paths import check_data, set_data_root, with_annotations
from mixdet.evaluation import as_results, load_coco, score_boxes
from mixdet.images import as_rgb

BATCH_SIZE = 8


@dataclass(frozen=True)
class LabeledImages:
    """Image files and their annotations.

    Attributes:
        files: Paths of the images.
        image_ids: The image ids in the annotations, in the order of `files`.
        category_ids: COCO category ids, indexed by label.
        annotations: The annotations of the whole data set.
    """

    files: list[str]
    image_ids: list[int | str]
    category_ids: list[int | str]
    annotations: COCO

    def __len__(self) -> int:
        return len(self.files)

    def subset(self, indices: Sequence[int]) -> LabeledImages:
        """Return the images with these indices."""
        files = [self.files[index] for index in indices]
        return replace(self, files=files, image_ids=[self.image_ids[index] for index in indices])

    def detect(self, network: Callable) -> list[tuple[np.ndarray, ...]]:
        """Run a network on all images.

        Args:
            network: Takes a list of RGB images, and returns one tuple per image (see below).

        Returns:
            One tuple per image: the boxes (n, 4), the scores (n,) and the labels (n,).
        """
        detections = []
        for start in range(0, len(self), BATCH_SIZE):
            batch = self.files[start : start + BATCH_SIZE]
            detections += network([as_rgb(file) for file in batch])
        return detections

    def mean_ap(self, detections: Sequence[Sequence[np.ndarray]]) -> float:
        """Return COCO's box mAP of detections that `detect` returned.

        The mAP is -1 if the annotations of the images have no objects.
        """
        results = [
            result
            for image_id, arrays in zip(self.image_ids, detections, strict=True)
            for result in as_results(image_id, *(a.tolist() for a in arrays), self.category_ids)
        ]
        scores = score_boxes(self.annotations, results, self.category_ids, self.image_ids)
        return scores.stats["bbox_mAP"]


def load_labeled_images(cfg: Config, loader: str, data_root: str | None = None) -> LabeledImages:
    """Return the images of a config's data loader.

    Args:
        cfg: The config. If the loader has several data sets, the first one is taken.
        loader: 'train_dataloader', 'val_dataloader' or 'test_dataloader'.
        data_root: Another folder for the config's data.

    Raises:
        MixDetError: The images or the annotations are missing.
    """
    cfg = copy.deepcopy(cfg)
    if data_root is not None:
        set_data_root(cfg, data_root)
    check_data(cfg, (loader,))
    _, dataset_cfg = next(with_annotations(cfg, (loader,)))
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints when it loads a file
        dataset = DATASETS.build(dataset_cfg)
    infos = [dataset.get_data_info(index) for index in range(len(dataset))]
    return LabeledImages(
        files=[info["img_path"] for info in infos],
        image_ids=[info["img_id"] for info in infos],
        category_ids=dataset.cat_ids,
        annotations=load_coco(dataset.ann_file),
    )
