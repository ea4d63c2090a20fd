"""The digit scenes as a data set of mmdet's, made on first use."""

from __future__ import annotations

import os
from pathlib import Path
from typing import ClassVar

from mmdet.registry import DATASETS
from mmengine.dist import barrier

from mixdet.datasets.safe_coco import SafeCocoDataset
from mixdet.digit_scenes.drawing import CLASSES
from mixdet.digit_scenes.files import ensure_digit_scenes, read_parameters
from mixdet.errors import MixDetError


@DATASETS.register_module()
class DigitScenes(SafeCocoDataset):
    """`SafeCocoDataset` whose folder rank 0 makes where it is missing; the others wait for it.

    A folder that has the annotation file already is used as it is, so that `data_root` may name
    scenes made with other arguments (`tools/make_digit_scenes.py`) or a data set of the user's own.

    Args:
        data_root: Folder of the data set.
        ann_file: Annotation file, relative to `data_root`.
        data_prefix: Folder of the images, relative to `data_root`.
        **kwargs: Of `SafeCocoDataset`.

    Raises:
        MixDetError: The annotation file is missing, and is none of the digit scenes' or cannot be
            made beside what the folder holds.
    """

    makes_its_data: ClassVar[bool] = True  # what is missing before the run need not stay so

    METAINFO: ClassVar[dict] = {
        "classes": CLASSES,
        "palette": [
            (230, 25, 75),
            (60, 180, 75),
            (255, 225, 25),
            (0, 130, 200),
            (245, 130, 48),
            (145, 30, 180),
            (70, 240, 240),
            (240, 50, 230),
            (210, 245, 60),
            (250, 190, 212),
        ],
    }

    def __init__(
        self,
        *,
        data_root: str = "data/digit_scenes",
        ann_file: str = "annotations/instances_train.json",
        data_prefix: dict | None = None,
        **kwargs,
    ) -> None:
        annotations = Path(data_root, ann_file)
        # of this machine: several need not share a disk
        first = int(os.environ.get("LOCAL_RANK", 0)) == 0
        ours = read_parameters(Path(data_root)) is not None
        if first and (ours or not annotations.is_file()):
            ensure_digit_scenes(data_root)
        barrier()
        if not annotations.is_file():
            raise MixDetError(
                f"{annotations} is missing: digit scenes hold "
                "annotations/instances_train.json and annotations/instances_val.json"
            )
        super().__init__(
            data_root=data_root,
            ann_file=ann_file,
            data_prefix=data_prefix or {"img": "train/"},
            **kwargs,
        )
