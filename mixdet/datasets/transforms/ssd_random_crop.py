"""SSD's augmentation in one transform: planned first, then done once, on the crop's pixels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np
import torch
from mmcv.transforms import BaseTransform
from mmdet.registry import TRANSFORMS
from mmdet.structures.bbox import HorizontalBoxes
from mmengine import fileio

from mixdet.datasets.transforms.crop_plan import CropPlan, CropPlanner
from mixdet.datasets.transforms.photometric import PhotometricDistortion, distort
from mixdet.errors import MixDetError

# OpenCV decodes a JPEG at 1 / 2, 1 / 4, 1 / 8 of its size at less cost, by scaling its transform.
REDUCED = {
    8: cv2.IMREAD_REDUCED_COLOR_8,
    4: cv2.IMREAD_REDUCED_COLOR_4,
    2: cv2.IMREAD_REDUCED_COLOR_2,
}
JPEG = b"\xff\xd8"
UNCROPPED = {"gt_masks", "gt_seg_map", "gt_keypoints"}


class Annotations(NamedTuple):
    """What is annotated in an image.

    Attributes:
        boxes: (N, 4) float32, (x1, y1, x2, y2) in pixels.
        labels: (N,) int64.
        ignored: (N,) bool.
    """

    boxes: np.ndarray
    labels: np.ndarray
    ignored: np.ndarray

    @classmethod
    def of(cls, results: dict) -> Annotations:
        """Those of a sample, loaded or as its data set gives them."""
        if "gt_bboxes" in results:
            boxes = results["gt_bboxes"].tensor.numpy()
            return cls(boxes, results["gt_bboxes_labels"], results["gt_ignore_flags"])
        instances = results.get("instances", [])
        return cls(
            np.array([each["bbox"] for each in instances], np.float32).reshape(len(instances), 4),
            np.array([each["bbox_label"] for each in instances], np.int64),
            np.array([each["ignore_flag"] for each in instances], bool),
        )


@TRANSFORMS.register_module()
class SSDRandomCrop(BaseTransform):
    """Read, expand, crop by minimum IoU, resize, flip and distort: SSD's augmentation in one step.

    Stands for mmdet's `LoadImageFromFile`, `LoadAnnotations` (of boxes), `Expand`,
    `MinIoURandomCrop`, `Resize` (bilinear, to a fixed size), `RandomFlip` and
    `PhotoMetricDistortion`, with their distribution. What to do is drawn from the boxes and the
    size that the annotations give; only then the file is decoded, reduced where the crop is at
    least twice the output, and the crop's pixels are resized once. Draws from NumPy's global
    generator, which `SeedSample` seeds.

    Where a reduced image is used, the crop is widened to whole pixels of it, by less than one
    pixel of the output, and the boxes follow.

    Required keys: img_path; instances, as data sets of mmdet's give them (bbox, x1, y1, x2, y2 in
    pixels, bbox_label, ignore_flag), or gt_bboxes (`HorizontalBoxes`), gt_bboxes_labels and
    gt_ignore_flags of a step before, which come first. height and width, as `CocoDataset` gives
    them, spare an image's decoding in full.

    Set or changed: img, (H, W, 3) BGR, uint8, or float32 when distorted; img_shape and ori_shape,
    (height, width); scale_factor, (x, y), pixels of the output for one of the image; flip,
    flip_direction; gt_bboxes, (N, 4) x1, y1, x2, y2 in pixels of the output, clipped to it, without
    those whose center is beyond the crop, and gt_bboxes_labels and gt_ignore_flags of the same.

    Args:
        scale: (width, height) of the output.
        expand_ratio: Smallest and largest canvas over image; None for no expansion.
        expand_prob: Probability of an expansion.
        fill: RGB of the canvas (img itself is BGR), its fractions dropped.
        min_ious: Thresholds of the crop's IoU with all boxes.
        min_crop_size: Smallest side of a crop over the canvas's.
        flip_prob: Probability of a mirrored image.
        photometric: Arguments of `PhotometricDistortion`; None for none.
        backend_args: mmengine's file backend.

    Raises:
        MixDetError: OpenCV cannot decode the file, or the sample has masks, segmentation maps or
            keypoints, which are not cropped.
        OSError: The file cannot be read.
    """

    def __init__(
        self,
        scale: tuple[int, int],
        expand_ratio: Sequence[float] | None = (1, 4),
        expand_prob: float = 0.5,
        fill: Sequence[float] = (123.675, 116.28, 103.53),
        min_ious: Sequence[float] = (0.1, 0.3, 0.5, 0.7, 0.9),
        min_crop_size: float = 0.3,
        flip_prob: float = 0.5,
        photometric: dict | None = None,
        backend_args: dict | None = None,
    ) -> None:
        self.scale = tuple(scale)
        self.fill = tuple(int(value) for value in fill[::-1])
        self.planner = CropPlanner(
            expand_ratio=expand_ratio,
            expand_prob=expand_prob,
            min_ious=min_ious,
            min_crop_size=min_crop_size,
            flip_prob=flip_prob,
        )
        self.photometric = None if photometric is None else PhotometricDistortion(**photometric)
        self.backend_args = backend_args

    def transform(self, results: dict) -> dict:
        """Plan, read and augment one image."""
        if unfit := results.keys() & UNCROPPED:
            raise MixDetError(
                f"SSDRandomCrop crops boxes alone, and the sample has {', '.join(sorted(unfit))}: "
                "leave that out of LoadAnnotations, or use mmdet's MinIoURandomCrop"
            )
        annotations = Annotations.of(results)
        path = results["img_path"]
        data = fileio.get(path, backend_args=self.backend_args)
        size, reduction = None, 1
        if "height" in results:
            size = results["height"], results["width"]
            plan = self.planner(annotations.boxes, *size)
            reduction = self._reduction(plan) if data.startswith(JPEG) else 1
        image = _decode(data, reduction, path)
        if size is None or image.shape[:2] != tuple(-(-side // reduction) for side in size):
            # not stated, turned by EXIF, or another file than the annotations describe
            if reduction > 1:
                reduction, image = 1, _decode(data, 1, path)
            size = image.shape[:2]
            plan = self.planner(annotations.boxes, *size)
        results["ori_shape"] = size
        return self.apply(results, annotations, image, plan, reduction)

    def apply(
        self,
        results: dict,
        annotations: Annotations,
        image: np.ndarray,
        plan: CropPlan,
        reduction: int,
    ) -> dict:
        """Carry out a plan.

        Args:
            results: The sample.
            annotations: Its boxes, in pixels of the whole image.
            image: (H, W, 3) uint8, BGR, decoded at 1 / reduction of its size.
            plan: What to crop, in pixels of the whole image.
            reduction: 1, 2, 4 or 8.
        """
        x1, y1, x2, y2 = plan.crop
        x1, y1, x2, y2 = x1 // reduction, y1 // reduction, -(-x2 // reduction), -(-y2 // reduction)
        crop = cv2.resize(self._cut(image, x1, y1, x2, y2), self.scale)
        if plan.flip:
            crop = cv2.flip(crop, 1)
        width, height = self.scale
        if self.photometric is not None:
            rows = _shown(-y1, image.shape[0], height / (y2 - y1), height)
            columns = _shown(-x1, image.shape[1], width / (x2 - x1), width)
            if plan.flip:
                columns = slice(width - columns.stop, width - columns.start)
            crop = distort(crop, self.photometric.draw(), (rows, columns), self.fill)

        factor = width / ((x2 - x1) * reduction), height / ((y2 - y1) * reduction)
        corners = annotations.boxes[plan.kept].reshape(-1, 2, 2)
        corners = (corners - np.float32([x1 * reduction, y1 * reduction])) * np.float32(factor)
        corners = np.minimum(np.maximum(corners, 0), np.float32(self.scale))
        if plan.flip:
            corners[..., 0] = width - corners[:, ::-1, 0]
        results.update(
            img=crop,
            img_shape=crop.shape[:2],
            scale_factor=factor,
            flip=plan.flip,
            flip_direction="horizontal" if plan.flip else None,
            gt_bboxes=HorizontalBoxes(torch.from_numpy(corners.reshape(-1, 4)), clone=False),
            gt_bboxes_labels=annotations.labels[plan.kept],
            gt_ignore_flags=annotations.ignored[plan.kept],
        )
        return results

    def _reduction(self, plan: CropPlan) -> int:
        """The strongest reduction that leaves the crop no smaller than the output."""
        x1, y1, x2, y2 = plan.crop
        spare = min((x2 - x1) / self.scale[0], (y2 - y1) / self.scale[1])
        return next((reduction for reduction in REDUCED if reduction <= spare), 1)

    def _cut(self, image: np.ndarray, x1: int, y1: int, x2: int, y2: int) -> np.ndarray:
        """The crop of an image, filled where it lies beyond."""
        height, width = image.shape[:2]
        inside = image[max(y1, 0) : max(y2, 0), max(x1, 0) : max(x2, 0)]
        if not inside.size:
            return np.full((y2 - y1, x2 - x1, 3), self.fill, np.uint8)
        margins = max(-y1, 0), max(y2 - height, 0), max(-x1, 0), max(x2 - width, 0)
        if not any(margins):
            return inside
        return cv2.copyMakeBorder(inside, *margins, cv2.BORDER_CONSTANT, value=self.fill)

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}(scale={self.scale}, fill={self.fill}, {self.planner}, "
            f"photometric={self.photometric})"
        )


def _shown(start: int, length: int, factor: float, size: int) -> slice:
    """Where an image can be seen, along one side of a resized crop; rather more than less.

    Args:
        start: Where it begins, in pixels of the crop before it is resized.
        length: Its side, in those pixels.
        factor: How much the crop is enlarged.
        size: The side of the resized crop.
    """
    # the resize takes a pixel from two neighbors, no more than one from where it lies
    first = min(max(math.floor((start - 1) * factor) - 1, 0), size)
    last = min(max(math.ceil((start + length + 1) * factor) + 1, first), size)
    return slice(first, last)


def _decode(data: bytes, reduction: int, path: str) -> np.ndarray:
    """(H, W, 3) uint8, BGR, turned as EXIF says: what mmdet's `LoadImageFromFile` reads."""
    image = cv2.imdecode(np.frombuffer(data, np.uint8), REDUCED.get(reduction, cv2.IMREAD_COLOR))
    if image is None:
        raise MixDetError(f"{path}: OpenCV cannot decode this image; replace or remove it")
    return image
