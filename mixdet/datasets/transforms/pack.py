"""The last step of a pipeline: an image and its boxes as a detector takes them."""

from __future__ import annotations

import numpy as np
import torch
from mmdet.datasets.transforms import PackDetInputs
from mmdet.registry import TRANSFORMS
from mmdet.structures import DetDataSample
from mmdet.structures.bbox import BaseBoxes
from mmengine.structures import InstanceData
from torch import Tensor

BOXES = ("gt_bboxes", "gt_bboxes_labels", "gt_ignore_flags")
MORE = {"gt_masks", "gt_seg_map", "proposals"}


@TRANSFORMS.register_module()
class PackChannelsLast(PackDetInputs):
    """mmdet's `PackDetInputs`, with the image as it lies, channels last.

    `inputs` has mmdet's shape, (3, H, W), and its values, in the memory of the (H, W, 3) that was
    read or augmented: nothing is laid out anew here, nor, on a CPU with
    `BatchedDetDataPreprocessor`, before the first convolution. Boxes and labels are copied only
    where some are to be ignored. A sample with anything else, or without boxes, is otherwise
    packed by mmdet.

    Required keys: img, (H, W, 3) or (H, W); used where they are there: gt_bboxes, gt_bboxes_labels
    and gt_ignore_flags, and those of `meta_keys`.

    Gives `inputs`, a tensor, and `data_samples`, a `DetDataSample`, whose fields are mmdet's. Both
    share memory with the results, where mmdet's image is a copy.

    Args:
        meta_keys: What goes into the data sample's meta information; mmdet's by default.
    """

    def transform(self, results: dict) -> dict:
        """Pack one sample into `inputs` and `data_samples`."""
        if "img" not in results:
            return super().transform(results)
        rest = dict(results)
        image = np.require(np.atleast_3d(rest.pop("img")), requirements=["C", "W"])
        inputs = torch.from_numpy(image).permute(2, 0, 1)
        if not _boxes_alone(rest):
            return {"inputs": inputs, **super().transform(rest)}

        boxes, labels = rest["gt_bboxes"], torch.from_numpy(rest["gt_bboxes_labels"])
        none = type(boxes)(boxes.tensor[:0], clone=False)
        sample = DetDataSample()
        for key in self.meta_keys:
            if key in rest:  # a field at a time: `set_metainfo` copies them deeply
                sample.set_field(rest[key], key, field_type="metainfo")
        sample.gt_instances = _instances(boxes, labels)
        sample.ignored_instances = _instances(none, labels[:0])
        return {"inputs": inputs, "data_samples": sample}


def _boxes_alone(results: dict) -> bool:
    """Whether a sample has boxes and labels as transforms make them, none to be ignored."""
    if not results.keys() >= set(BOXES) or results.keys() & MORE:
        return False
    boxes, labels, ignored = (results[key] for key in BOXES)
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
