"""Images of a config's data, with what stands in their annotations."""

from __future__ import annotations

import contextlib
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

BATCH = 8


@dataclass(frozen=True)
class LabeledImages:
    """Files and what is in them.

    Attributes:
        files: The images.
        image_ids: Their ids in the annotations.
        category_ids: Category ids, indexed by label.
        truth: The annotations.
    """

    files: list[str]
    image_ids: list[int]
    category_ids: list[int]
    truth: COCO

    def __len__(self) -> int:
        return len(self.files)

    def some(self, indices: Sequence[int]) -> LabeledImages:
        """Those of some indices."""
        files, ids = ([each[i] for i in indices] for each in (self.files, self.image_ids))
        return replace(self, files=files, image_ids=ids)

    def found(self, network: Callable) -> list[tuple[np.ndarray, ...]]:
        """What a network finds: boxes (n, 4), scores (n,) and labels (n,) of each image."""
        found = []
        for start in range(0, len(self), BATCH):
            found += network([as_rgb(file) for file in self.files[start : start + BATCH]])
        return found

    def mean_ap(self, found: Sequence[Sequence[np.ndarray]]) -> float:
        """COCO's box mAP of detections in these images."""
        results = [
            result
            for image_id, arrays in zip(self.image_ids, found, strict=True)
            for result in as_results(image_id, *(a.tolist() for a in arrays), self.category_ids)
        ]
        scores = score_boxes(self.truth, results, self.category_ids, self.image_ids)
        return scores.stats["bbox_mAP"]


def labeled_images(cfg: Config, loader: str, data_root: str | None = None) -> LabeledImages:
    """The images of a data loader; of its first data set, where it has several.

    Args:
        cfg: The config.
        loader: 'train_dataloader' or 'test_dataloader'.
        data_root: Another folder for the config's data.

    Raises:
        MixDetError: They are missing.
    """
    cfg = cfg.copy()
    if data_root is not None:
        set_data_root(cfg, data_root)
    check_data(cfg, (loader,))
    _, described = next(with_annotations(cfg, (loader,)))
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools says what it loads
        dataset = DATASETS.build(described)
    infos = [dataset.get_data_info(index) for index in range(len(dataset))]
    return LabeledImages(
        files=[info["img_path"] for info in infos],
        image_ids=[info["img_id"] for info in infos],
        category_ids=dataset.cat_ids,
        truth=load_coco(dataset.ann_file),
    )
