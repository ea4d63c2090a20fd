"""The real images that a benchmark reads."""

from __future__ import annotations

from pathlib import Path

from mixdet.errors import MixDetError

PACK = dict(type="PackDetInputs")  # how mmdet's pipelines end


def coco(data_root: str, split: str, pipeline: list[dict], **settings: object) -> dict:
    """Config of mmdet's `CocoDataset`.

    Args:
        data_root: COCO's layout.
        split: `train2017` or `val2017`.
        pipeline: Its transforms.
        **settings: More of its arguments.

    Raises:
        MixDetError: The split's annotation file is not there.
    """
    ann_file = f"annotations/instances_{split}.json"
    if not Path(data_root, ann_file).is_file():
        raise MixDetError(f"--data-root {data_root}: {ann_file} is not there; give COCO's layout")
    return dict(
        type="CocoDataset",
        data_root=str(data_root),
        ann_file=ann_file,
        data_prefix=dict(img=split),
        pipeline=pipeline,
        **settings,
    )
