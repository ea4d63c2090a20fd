"""SSD's augmentation in one transform, which processes only the pixels of the crop."""

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
from mixdet.images import decode, missing_decoder

# OpenCV decodes a JPEG faster at 1/2, 1/4 or 1/8 of its size than at its full size.
REDUCED_FLAGS = {
    8: cv2.IMREAD_REDUCED_COLOR_8,
    4: cv2.IMREAD_REDUCED_COLOR_4,
    2: cv2.IMREAD_REDUCED_COLOR_2,
}
JPEG_SIGNATURE = b"\xff\xd8"
UNSUPPORTED_KEYS = {"gt_masks", "gt_seg_map", "gt_keypoints"}


class Annotations(NamedTuple):
    """The annotations of an image.

    Attributes:
        boxes: (N, 4) float32, (x1, y1, x2, y2) in pixels.
        labels: (N,) int64.
        ignored: (N,) bool.
    """

    boxes: np.ndarray
    labels: np.ndarray
    ignored: np.ndarray

    @classmethod
    def from_results(cls, results: dict) -> Annotations:
        """Return the annotations loaded by an earlier transform, or else those of the data set."""
        if "gt_bboxes" in results:
            boxes = results["gt_bboxes"].tensor.numpy()
            return cls(boxes, results["gt_bboxes_labels"], results["gt_ignore_flags"])
        instances = results.get("instances", [])
        return cls(
            np.array([item["bbox"] for item in instances], np.float32).reshape(len(instances), 4),
            np.array([item["bbox_label"] for item in instances], np.int64),
            np.array([item["ignore_flag"] for item in instances], bool),
        )


@TRANSFORMS.register_module()
class SSDRandomCrop(BaseTransform):
    """Read, expand, crop by minimum IoU, resize, flip and distort an image in one step.

    The transform replaces mmdet's `LoadImageFromFile`, `LoadAnnotations` (of boxes), `Expand`,
    `MinIoURandomCrop`, `Resize` (bilinear, to a fixed size), `RandomFlip` and
    `PhotoMetricDistortion`. Its results have the same distribution. It first plans the crop from
    the boxes and the image size in the annotations. Then it decodes the file, and resizes the
    pixels of the crop once. If the crop is at least twice as large as the output, a JPEG is decoded
    at a reduced size. The random numbers come from NumPy's global generator, which `SeedSample`
    seeds.

    If an image is decoded at a reduced size, the crop is enlarged to whole pixels of the reduced
    image. Each side of the crop moves by less than one pixel of the output. The boxes are computed
    for the enlarged crop.

    Required keys: img_path, and the annotations. If gt_bboxes (`HorizontalBoxes`), gt_bboxes_labels
    and gt_ignore_flags exist, the annotations are read from these keys. Otherwise they are read
    from instances, a list of dicts as in mmdet's data sets: bbox as (x1, y1, x2, y2) in pixels,
    bbox_label and ignore_flag.

    Optional keys: height and width of the image, as in `CocoDataset`. Without them an image is
    decoded at its full size.

    Modified or added keys:

    - img: (H, W, 3) BGR, float32 if `photometric` is given, else uint8.
    - img_shape and ori_shape: (height, width) of the output and of the image.
    - scale_factor: (x, y), pixels of the output per pixel of the image.
    - flip and flip_direction.
    - gt_bboxes: (N, 4), (x1, y1, x2, y2) in pixels of the output, clipped to the output.
    - gt_bboxes_labels and gt_ignore_flags.

    Boxes whose center is outside the crop are removed.

    Args:
        scale: (width, height) of the output.
        expand_ratio: Smallest and largest ratio of the canvas's side to the image's side. The
            canvas is the image after the expansion. None turns the expansion off.
        expand_prob: Probability of an expansion.
        fill: Color of the canvas around the image, rounded down. It is in RGB, although img is BGR.
        min_ious: Thresholds for the smallest IoU of the crop with a box.
        min_crop_size: Smallest ratio of the crop's side to the canvas's side.
        flip_prob: Probability of a flip.
        photometric: Arguments of `PhotometricDistortion`. None turns the distortion off.
        backend_args: Arguments of mmengine's file backend.

    Raises:
        MixDetError: OpenCV cannot decode the file, or the sample has masks, segmentation maps or
            keypoints, which the transform cannot crop.
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
        if unsupported := results.keys() & UNSUPPORTED_KEYS:
            raise MixDetError(
                "SSDRandomCrop supports boxes only, but the sample has "
                f"{', '.join(sorted(unsupported))}: do not load them in LoadAnnotations, or use "
                "mmdet's MinIoURandomCrop"
            )
        annotations = Annotations.from_results(results)
        path = results["img_path"]
        data = fileio.get(path, backend_args=self.backend_args)
        size, reduction = None, 1
        if "height" in results:
            size = results["height"], results["width"]
            plan = self.planner(annotations.boxes, *size)
            reduction = self._reduction(plan) if data.startswith(JPEG_SIGNATURE) else 1
        image = _decode(data, reduction, path)
        if size is None or image.shape[:2] != tuple(-(-side // reduction) for side in size):
            # The annotations have no size or a wrong size, or EXIF turns the image. Plan with the
            # decoded image's size.
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
        """Apply a plan to an image and its annotations.

        Args:
            results: The sample.
            annotations: The annotations, in pixels of the image at its full size.
            image: (H, W, 3) uint8, BGR, decoded at 1 / reduction of its size.
            plan: The plan, in pixels of the image at its full size.
            reduction: 1, 2, 4 or 8.
        """
        x1, y1, x2, y2 = plan.crop
        x1, y1, x2, y2 = x1 // reduction, y1 // reduction, -(-x2 // reduction), -(-y2 // reduction)
        crop = cv2.resize(self._crop(image, x1, y1, x2, y2), self.scale)
        if plan.flip:
            crop = cv2.flip(crop, 1)
        width, height = self.scale
        if self.photometric is not None:
            rows = _visible_slice(-y1, image.shape[0], height / (y2 - y1), height)
            columns = _visible_slice(-x1, image.shape[1], width / (x2 - x1), width)
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
        """Return the largest reduction after which the crop is at least as large as the output."""
        x1, y1, x2, y2 = plan.crop
        ratio = min((x2 - x1) / self.scale[0], (y2 - y1) / self.scale[1])
        return next((reduction for reduction in REDUCED_FLAGS if reduction <= ratio), 1)

    def _crop(self, image: np.ndarray, x1: int, y1: int, x2: int, y2: int) -> np.ndarray:
        """Crop an image, and fill the crop where it extends beyond the image."""
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


def _visible_slice(start: int, length: int, factor: float, size: int) -> slice:
    """Return the range of rows, or of columns, in which a resized crop may show the image.

    The range may be a little too large, but never too small.

    Args:
        start: First row or column of the image in the crop, in pixels before the resize.
        length: Side of the image, in pixels before the resize.
        factor: Ratio of the resized crop's side to the crop's side.
        size: Side of the resized crop.
    """
    # Along a side, a resized pixel depends on two pixels of the crop. Each of these two is less
    # than one pixel away from the position of the resized pixel in the crop.
    first = min(max(math.floor((start - 1) * factor) - 1, 0), size)
    last = min(max(math.ceil((start + length + 1) * factor) + 1, first), size)
    return slice(first, last)


def _decode(data: bytes, reduction: int, path: str) -> np.ndarray:
    """Decode an image to (H, W, 3) uint8, BGR, upright."""
    image = decode(data, path, REDUCED_FLAGS.get(reduction, cv2.IMREAD_COLOR))
    if image is None:
        remedy = missing_decoder(data) or "replace or remove it"
        raise MixDetError(f"{path}: OpenCV cannot decode this image: {remedy}")
    return image
