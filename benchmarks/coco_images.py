"""Configs for benchmarks that read COCO's images."""

from __future__ import annotations

from pathlib import Path

from mixdet.errors import MixDetError

PACK_DET_INPUTS = dict(type="PackDetInputs")  # the last step of mmdet's own pipelines


def coco_dataset(data_root: str, split: str, pipeline: list[dict], **settings: object) -> dict:
    """Return the config of mmdet's `CocoDataset`.

    Args:
        data_root: A folder in COCO's layout.
        split: 'train2017' or 'val2017'.
        pipeline: Configs of the transforms.
        **settings: More arguments of `CocoDataset`.

    Raises:
        MixDetError: The annotation file of the split is missing.
    """
    ann_file = f"annotations/instances_{split}.json"
    if not Path(data_root, ann_file).is_file():
        raise MixDetError(
            f"--data-root {data_root}: {ann_file} is missing: give a folder in COCO's layout"
        )
    return dict(
        type="CocoDataset",
        data_root=str(data_root),
        ann_file=ann_file,
        data_prefix=dict(img=split),
        pipeline=pipeline,
        **settings,
    )
