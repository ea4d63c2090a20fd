"""Count the training boxes of each class that the model's anchors match."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from mmdet.models.task_modules import AnchorGenerator, BboxOverlaps2D, MaxIoUAssigner
from mmengine.config import Config
from torch import nn

from mixdet.data_check.data_problems import NOTE, Example, Problem, problem_list
from mixdet.data_check.data_splits import Split

PERCENTILES = (5, 25, 50, 75, 95)
RESIZES = ("Resize", "SSDRandomCrop")  # transforms that resize images to their `scale`
FEW = 0.5  # classes with a smaller fraction of matched boxes are named
GUIDE = "docs/custom_data.md#small-objects"


@dataclass(frozen=True)
class ClassFit:
    """How many boxes of a class are matched by an anchor.

    Attributes:
        name: Name of the class.
        boxes: Number of boxes.
        side: Median of the square root of the box area, in pixels of the network's input.
        matched: Fraction of the boxes whose IoU with some anchor is at least `AnchorFit.iou`.
    """

    name: str
    boxes: int
    side: float
    matched: float


@dataclass(frozen=True)
class AnchorFit:
    """Comparison of the training boxes, resized as in training, with the model's anchors.

    Attributes:
        boxes: Number of boxes. Crowds are not counted.
        input_wh: (width, height) in pixels that images are resized to. Augmentation is ignored.
        sides: Percentiles (5, 25, 50, 75, 95) of the square root of the box area, in pixels.
        ratios: The same percentiles of width / height.
        iou: The smallest IoU of a match: `pos_iou_thr` of the assigner.
        matched: Fraction of the boxes that an anchor matches.
        classes: The fit of each class that has boxes, in the order of the config.
        best_anchor: Whether a box that no anchor matches is learned from its single best anchor.
    """

    boxes: int
    input_wh: tuple[int, int]
    sides: list[float]
    ratios: list[float]
    iou: float
    matched: float
    classes: list[ClassFit]
    best_anchor: bool

    def as_dict(self) -> dict[str, Any]:
        """Return a dict that can be written as JSON."""
        return asdict(self)


def fit_anchors(split: Split, cfg: Config, model: nn.Module) -> AnchorFit | None:
    """Compare the training boxes with the anchors at every position of the model's grids.

    Args:
        split: The training data.
        cfg: The config that the model was built from.
        model: The model.

    Returns:
        The comparison. None if the model has no anchors, its assigner does not match by a threshold
        on the IoU alone, the config does not resize images to a known size, or there is no box.
    """
    head = getattr(model, "rpn_head", None) or getattr(model, "bbox_head", None)
    generator, assigner = (getattr(head, key, None) for key in ("prior_generator", "assigner"))
    resize = _training_resize(cfg)
    if resize is None or not _matches_by_iou(head, generator, assigner):
        return None
    boxes, labels = _resized_boxes(split, *resize)
    if not len(boxes):
        return None
    matched = best_overlaps(boxes, generator, grid_sizes(model, *resize)) >= assigner.pos_iou_thr
    sizes = boxes[:, 2:] - boxes[:, :2]
    sides = np.sqrt(sizes.prod(1))
    masks = {name: labels == index for index, name in enumerate(split.classes)}
    return AnchorFit(
        boxes=len(boxes),
        input_wh=resize[0],
        sides=_percentiles(sides),
        ratios=_percentiles(sizes[:, 0] / sizes[:, 1]),
        iou=assigner.pos_iou_thr,
        matched=float(matched.mean()),
        classes=[
            ClassFit(
                name, int(mask.sum()), float(np.median(sides[mask])), float(matched[mask].mean())
            )
            for name, mask in masks.items()
            if mask.any()
        ],
        best_anchor=assigner.match_low_quality and assigner.min_pos_iou <= 0,
    )


def check_anchors(fit: AnchorFit | None) -> list[Problem]:
    """Report the classes of which the anchors match less than half of the boxes."""
    poor = [part for part in fit.classes if part.matched < FEW] if fit else []
    if not poor:
        return []
    learned = "from its single best anchor" if fit.best_anchor else "from few anchors, or from none"
    return problem_list(
        "anchors_misfit",
        NOTE,
        "training",
        f"classes of which the anchors match less than {100 * FEW:g} % of the boxes at "
        f"{fit.input_wh[0]} x {fit.input_wh[1]}: an object without a match is learned {learned}, "
        f"so expect a low AP; a larger input size matches more small objects: {GUIDE}",
        len(poor),
        (
            Example(
                f"{part.name}: {100 * part.matched:.0f} % of {part.boxes:,} boxes, median side "
                f"{part.side:.0f} pixels"
            )
            for part in poor
        ),
    )


def best_overlaps(
    boxes: np.ndarray, generator: AnchorGenerator, grid_sizes: list[tuple[int, int]]
) -> np.ndarray:
    """Return the IoU of each box with its best anchor among all anchors of all grids.

    The IoU with an anchor of a given shape is largest where the anchor's center is nearest to the
    center of the box. So for each shape, only this grid position is compared.

    Args:
        boxes: (n, 4), (x1, y1, x2, y2) in pixels of the network's input.
        generator: The anchor generator.
        grid_sizes: (width, height) in cells of each level.

    Returns:
        (n,) largest IoU of each box.
    """
    best = np.zeros(len(boxes))
    centers, areas = (boxes[:, :2] + boxes[:, 2:]) / 2, (boxes[:, 2:] - boxes[:, :2]).prod(1)
    for anchors, stride, cells in zip(
        generator.base_anchors, generator.strides, grid_sizes, strict=True
    ):
        for anchor in anchors.numpy().astype(float):
            cell = np.rint((centers - (anchor[:2] + anchor[2:]) / 2) / stride)
            shift = cell.clip(0, np.array(cells) - 1) * stride
            starts = np.maximum(boxes[:, :2], anchor[:2] + shift)
            ends = np.minimum(boxes[:, 2:], anchor[2:] + shift)
            overlap = (ends - starts).clip(min=0).prod(1)
            union = areas + (anchor[2:] - anchor[:2]).prod() - overlap
            best = np.maximum(best, overlap / union)
    return best


def _matches_by_iou(head, generator, assigner) -> bool:
    """Tell whether a box is matched by all anchors whose IoU with it reaches a threshold."""
    train_cfg = getattr(head, "train_cfg", None) or {}
    return (
        isinstance(generator, AnchorGenerator)
        and type(assigner) is MaxIoUAssigner
        and type(assigner.iou_calculator) is BboxOverlaps2D
        and train_cfg.get("allowed_border", -1) < 0  # otherwise anchors at the border are left out
    )


@torch.no_grad()
def grid_sizes(model: nn.Module, scale: tuple[int, int], keep_ratio: bool) -> list[tuple[int, int]]:
    """Return (width, height) in cells of each level, by a run of the network on zeros.

    Args:
        model: The model.
        scale: (width, height) in pixels that images are resized to.
        keep_ratio: Whether images keep their aspect ratio. They may then be wide or tall, so the
            grids are made for a square.
    """
    width, height = (max(scale),) * 2 if keep_ratio else scale
    divisor = getattr(model.data_preprocessor, "pad_size_divisor", 1)
    width, height = (-(-side // divisor) * divisor for side in (width, height))
    training = model.training
    model.eval()
    levels = model.extract_feat(torch.zeros(1, 3, height, width))
    model.train(training)
    return [(level.shape[3], level.shape[2]) for level in levels]


def _training_resize(cfg: Config) -> tuple[tuple[int, int], bool] | None:
    """Find the first step that resizes in the training pipeline, or else in the test pipeline.

    Returns:
        `scale` and `keep_ratio` of the step, or None if there is none. `scale` is (width, height)
        in pixels.
    """

    def resize_steps(node) -> Iterator[dict]:
        if isinstance(node, dict):
            if node.get("type") in RESIZES and isinstance(node.get("scale"), (list, tuple)):
                yield node
            node = list(node.values())
        if isinstance(node, (list, tuple)):
            for child in node:
                yield from resize_steps(child)

    for loader in ("train_dataloader", "test_dataloader"):
        for step in resize_steps(cfg.get(loader)):
            return tuple(step["scale"]), step.get("keep_ratio", False)
    return None


def _resized_boxes(
    split: Split, scale: tuple[int, int], keep_ratio: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Return the boxes used in training, after the images are resized.

    Args:
        split: The training data.
        scale: (width, height) in pixels that images are resized to.
        keep_ratio: Whether images keep their aspect ratio and are resized to fit into `scale`.

    Returns:
        (n, 4) boxes (x1, y1, x2, y2) in pixels, cut at the edges of the image, and (n,) labels.
    """
    labels = np.where(split.crowd, -1, split.labels)
    boxes, images = split.boxes, split.sizes
    with np.errstate(invalid="ignore"):
        used = (labels >= 0) & (boxes[:, 2:] >= 1).all(1) & (images >= 1).all(1)
    boxes, images, labels = boxes[used], images[used], labels[used]
    factors = np.array(scale) / images
    if keep_ratio:
        longer, shorter = max(scale) / images.max(1), min(scale) / images.min(1)
        factors = np.minimum(longer, shorter)[:, None].repeat(2, 1)
    corners = np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)
    corners = corners.clip(0, np.tile(images, 2)) * np.tile(factors, 2)
    inside = (corners[:, 2:] > corners[:, :2]).all(1)
    return corners[inside], labels[inside]


def _percentiles(values: np.ndarray) -> list[float]:
    return [round(float(value), 2) for value in np.percentile(values, PERCENTILES)]
