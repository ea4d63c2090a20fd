"""The digit scenes (handwritten digits on photographs) as a data set for mmdet."""

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
    """A `SafeCocoDataset` that writes the digit scenes to `data_root` if they do not exist yet.

    The first process of a machine writes the files, and the other processes wait. Digit scenes of
    an older version are replaced. Any other folder with the annotation file is used unchanged. Such
    a folder may contain scenes that `tools/make_digit_scenes.py` made with other arguments, or
    another data set.

    Args:
        data_root: Folder of the data set.
        ann_file: Annotation file, relative to `data_root`.
        data_prefix: `{"img": FOLDER}`, with the folder of the images relative to `data_root`.
        **kwargs: Arguments of `SafeCocoDataset`.

    Raises:
        MixDetError: The digit scenes have no file named `ann_file`, or they cannot be written
            because the folder contains other files.
    """

    makes_its_data: ClassVar[bool] = True  # The checks before a run accept that files are missing.

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
        # One process per machine writes the files, since the machines may not share a disk.
        is_first = int(os.environ.get("LOCAL_RANK", 0)) == 0
        is_digit_scenes = read_parameters(Path(data_root)) is not None
        if is_first and (is_digit_scenes or not annotations.is_file()):
            ensure_digit_scenes(data_root)
        barrier()
        if not annotations.is_file():
            raise MixDetError(
                f"{annotations} is missing: set ann_file to one of the digit scenes' files, "
                "annotations/instances_train.json or annotations/instances_val.json"
            )
        super().__init__(
            data_root=data_root,
            ann_file=ann_file,
            data_prefix=data_prefix or {"img": "train/"},
            **kwargs,
        )
