"""The last transform of a pipeline: pack an image and its boxes for a detector."""

from __future__ import annotations

import numpy as np
import torch
from mmdet.datasets.transforms import PackDetInputs
from mmdet.registry import TRANSFORMS
from mmdet.structures import DetDataSample
from mmdet.structures.bbox import BaseBoxes
from mmengine.structures import InstanceData
from torch import Tensor

BOX_KEYS = ("gt_bboxes", "gt_bboxes_labels", "gt_ignore_flags")
OTHER_ANNOTATION_KEYS = {"gt_masks", "gt_seg_map", "proposals"}


@TRANSFORMS.register_module()
class PackChannelsLast(PackDetInputs):
    """mmdet's `PackDetInputs`, without a copy of the image.

    `inputs` has mmdet's shape (3, H, W) and mmdet's values, but shares the channels-last memory
    (H, W, 3) of the image. With `BatchedDetDataPreprocessor` on a CPU, the batch stays
    channels-last up to the first convolution. Boxes and labels are not copied either. If boxes are
    missing or marked as ignored, or if there are other annotations, mmdet's code packs the
    annotations.

    Required keys: img, (H, W, 3) or (H, W).

    Optional keys: gt_bboxes, gt_bboxes_labels and gt_ignore_flags, and the keys in `meta_keys`.

    Added keys: `inputs`, a tensor, and `data_samples`, a `DetDataSample` with mmdet's fields. Both
    share memory with the input of the transform.

    Args:
        meta_keys: Keys to copy to the meta information of the data sample, by default the same as
            in mmdet.
    """

    def transform(self, results: dict) -> dict:
        """Pack one sample into `inputs` and `data_samples`."""
        if "img" not in results:
            return super().transform(results)
        rest = dict(results)
        image = np.require(np.atleast_3d(rest.pop("img")), requirements=["C", "W"])
        inputs = torch.from_numpy(image).permute(2, 0, 1)
        if not _has_boxes_only(rest):
            return {"inputs": inputs, **super().transform(rest)}

        boxes, labels = rest["gt_bboxes"], torch.from_numpy(rest["gt_bboxes_labels"])
        no_boxes = type(boxes)(boxes.tensor[:0], clone=False)
        sample = DetDataSample()
        for key in self.meta_keys:
            if key in rest:  # `set_metainfo` would set all keys at once, but makes deep copies.
                sample.set_field(rest[key], key, field_type="metainfo")
        sample.gt_instances = _instances(boxes, labels)
        sample.ignored_instances = _instances(no_boxes, labels[:0])
        return {"inputs": inputs, "data_samples": sample}


def _has_boxes_only(results: dict) -> bool:
    """Tell whether a sample's annotations are boxes and labels only, and no box is ignored."""
    if not results.keys() >= set(BOX_KEYS) or results.keys() & OTHER_ANNOTATION_KEYS:
        return False
    boxes, labels, ignored = (results[key] for key in BOX_KEYS)
    return (
        isinstance(boxes, BaseBoxes)
        and isinstance(labels, np.ndarray)
        and labels.flags.carray
        and len(boxes) == len(labels) == len(ignored)
        and not ignored.any()
    )


def _instances(boxes: BaseBoxes, labels: Tensor) -> InstanceData:
    instances = InstanceData()
    instances.set_field(boxes, "bboxes")
    instances.set_field(labels, "labels")
    return instances
