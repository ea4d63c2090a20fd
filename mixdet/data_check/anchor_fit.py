"""Compare the anchors of a model with the boxes of the data by shape, and suggest better anchors.

Positions are ignored: the IoU is computed as if box and anchor had the same center.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from mmdet.registry import TASK_UTILS
from mmengine.config import Config
from torch import nn

from mixdet.annotations import is_crowd
from mixdet.data_check.data_splits import Split

MATCH_IOU = 0.5  # an anchor with this IoU or more is trained to predict the box
CHUNK = 20_000  # at most this many boxes are compared at once, and k-means uses at most this many
PERCENTILES = (5, 25, 50, 75, 95)


@dataclass(frozen=True)
class Coverage:
    """How well a set of anchor shapes covers a set of boxes.

    Attributes:
        mean_iou: IoU of a box with its best anchor, averaged over the boxes.
        matched: Fraction of the boxes whose best IoU is at least 0.5.
    """

    mean_iou: float
    matched: float

    def __str__(self) -> str:
        return (
            f"mean best IoU {self.mean_iou:.3f}, {100 * self.matched:.1f} % of boxes at 0.5 or more"
        )


@dataclass(frozen=True)
class AnchorFit:
    """Comparison of the training boxes, resized as in training, with the model's anchors.

    Attributes:
        boxes: Number of boxes. Crowds are not counted.
        input_wh: (width, height) in pixels that images are resized to. Augmentation is ignored.
        sides: Percentiles (5, 25, 50, 75, 95) of the square root of the box area, in pixels.
        ratios: The same percentiles of width / height.
        anchors: Number of anchor shapes of the model.
        now: Coverage by the model's anchors.
        clusters: (width, height) in pixels of the centers of a k-means clustering of the boxes,
            from small to large. There are `anchors` centers, or one per box if there are fewer
            boxes.
        by_clusters: Coverage by the k-means centers. This is about the best coverage that this
            number of shapes can reach.
        settings: Suggested `min_sizes` and `max_sizes` for the anchor generator. None if these
            sizes would not fit better than the sizes in the config.
        by_settings: Coverage by the anchors of `settings`, or None.
    """

    boxes: int
    input_wh: tuple[int, int]
    sides: list[float]
    ratios: list[float]
    anchors: int
    now: Coverage
    clusters: list[tuple[int, int]]
    by_clusters: Coverage
    settings: dict[str, list[int]] | None = None
    by_settings: Coverage | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return a dict that can be written as JSON."""
        return asdict(self)


def fit_anchors(split: Split, cfg: Config, model: nn.Module) -> AnchorFit | None:
    """Compare the training boxes with the model's anchors.

    Args:
        split: The training data.
        cfg: The config that the model was built from.
        model: The model.

    Returns:
        The comparison. None if the model has no anchors, the config does not resize images to a
        known size, or there is no box.
    """
    head = "rpn_head" if hasattr(model, "rpn_head") else "bbox_head"
    generator = getattr(getattr(model, head, None), "prior_generator", None)
    scale = _training_scale(cfg)
    boxes = _resized_boxes(split, *scale) if scale else np.empty((0, 2))
    if not hasattr(generator, "base_anchors") or not len(boxes):
        return None
    shapes = _anchor_shapes(generator)
    clusters = cluster_boxes(boxes, min(len(shapes), len(boxes)))
    now = measure_coverage(boxes, shapes)
    generator_cfg = cfg.model[head]["anchor_generator"]
    settings, by_settings = _suggest_sizes(generator, generator_cfg, boxes), None
    if settings:
        suggested = TASK_UTILS.build({**generator_cfg, "strides": generator.strides, **settings})
        by_settings = measure_coverage(boxes, _anchor_shapes(suggested))
        if by_settings.mean_iou <= now.mean_iou:
            settings = by_settings = None
    return AnchorFit(
        boxes=len(boxes),
        input_wh=scale[0],
        sides=_percentiles(np.sqrt(boxes.prod(1))),
        ratios=_percentiles(boxes[:, 0] / boxes[:, 1]),
        anchors=len(shapes),
        now=now,
        clusters=[(round(width), round(height)) for width, height in clusters.tolist()],
        by_clusters=measure_coverage(boxes, clusters),
        settings=settings,
        by_settings=by_settings,
    )


def measure_coverage(boxes: np.ndarray, anchors: np.ndarray) -> Coverage:
    """Measure how well anchors cover boxes.

    Args:
        boxes: (n, 2) widths and heights.
        anchors: (k, 2) widths and heights in the same unit.
    """
    best = np.concatenate([shape_iou(chunk, anchors).max(1) for chunk in _chunks(boxes)])
    return Coverage(float(best.mean()), float((best >= MATCH_IOU).mean()))


def shape_iou(boxes: np.ndarray, anchors: np.ndarray) -> np.ndarray:
    """Return the IoU (n, k) of boxes (n, 2) and anchors (k, 2), both (width, height)."""
    intersection = np.minimum(boxes[:, None], anchors).prod(-1)
    return intersection / (boxes.prod(1)[:, None] + anchors.prod(1) - intersection)


def cluster_boxes(boxes: np.ndarray, count: int, max_iterations: int = 50) -> np.ndarray:
    """Cluster box shapes by k-means with the distance 1 - IoU (YOLO9000, arXiv 1612.08242, sec. 2).

    The initial centers are boxes at evenly spaced quantiles of the area. No random numbers are
    used.

    Args:
        boxes: (n, 2) widths and heights.
        count: Number of clusters, at most n.
        max_iterations: The clustering stops after this many iterations if it has not converged.

    Returns:
        The centers (count, 2), from small to large.
    """
    boxes = boxes[np.argsort(boxes.prod(1), kind="stable")]
    boxes = boxes[np.linspace(0, len(boxes) - 1, min(len(boxes), CHUNK)).astype(int)]
    centers = boxes[((np.arange(count) + 0.5) / count * len(boxes)).astype(int)]
    nearest = None
    for _ in range(max_iterations):
        previous = nearest
        nearest = np.concatenate([shape_iou(chunk, centers).argmax(1) for chunk in _chunks(boxes)])
        if previous is not None and (previous == nearest).all():
            break
        for index in np.unique(nearest):
            centers[index] = np.median(boxes[nearest == index], axis=0)
    return centers[np.argsort(centers.prod(1), kind="stable")]


def _chunks(boxes: np.ndarray) -> list[np.ndarray]:
    return np.array_split(boxes, -(-len(boxes) // CHUNK))


def _anchor_shapes(generator) -> np.ndarray:
    """Return the k different shapes of the anchors: (k, 2) widths and heights in pixels."""
    corners = np.concatenate([anchors.numpy() for anchors in generator.base_anchors]).astype(float)
    return np.unique((corners[:, 2:] - corners[:, :2]).round(3), axis=0)


def _suggest_sizes(
    generator, generator_cfg: dict, boxes: np.ndarray
) -> dict[str, list[int]] | None:
    """Return sizes for an SSD anchor generator that spread the boxes evenly over the levels.

    Boxes smaller than a cell of the finest level are left out. Whether an anchor overlaps a box
    this small depends on the position of the box, not on the size of the anchor.
    """
    sides = np.sqrt(boxes.prod(1))
    sides = sides[sides >= min(generator.strides[0])]
    if "min_sizes" not in generator_cfg or not len(sides):
        return None
    levels = np.arange(len(generator.base_anchors) + 1)
    edges = np.quantile(sides, (levels + 0.5) / len(levels)).round().astype(int)
    edges = np.maximum.accumulate(edges - levels) + levels  # strictly increasing
    return {"min_sizes": edges[:-1].tolist(), "max_sizes": edges[1:].tolist()}


def _training_scale(cfg: Config) -> tuple[tuple[int, int], bool] | None:
    """Find the first `Resize` of the training pipeline, or else of the test pipeline.

    Returns:
        `scale` and `keep_ratio` of the `Resize`, or None if there is no `Resize`. `scale` is
        (width, height) in pixels.
    """

    def resize_steps(node) -> Iterator[dict]:
        if isinstance(node, dict):
            if node.get("type") == "Resize" and isinstance(node.get("scale"), (list, tuple)):
                yield node
            node = list(node.values())
        if isinstance(node, (list, tuple)):
            for child in node:
                yield from resize_steps(child)

    for loader in ("train_dataloader", "test_dataloader"):
        for step in resize_steps(cfg.get(loader)):
            return tuple(step["scale"]), step.get("keep_ratio", False)
    return None


def _resized_boxes(split: Split, scale: tuple[int, int], keep_ratio: bool) -> np.ndarray:
    """Return the sizes of the boxes used in training, after the images are resized.

    Args:
        split: The training data.
        scale: (width, height) in pixels that images are resized to.
        keep_ratio: Whether images keep their aspect ratio and are resized to fit into `scale`.

    Returns:
        (n, 2) widths and heights in pixels.
    """
    used = [
        not is_crowd(annotation)
        and split.category_name_by_id.get(annotation.get("category_id")) in split.classes
        for annotation in split.annotations
    ]
    boxes, images = split.boxes[:, 2:], split.sizes
    with np.errstate(invalid="ignore"):
        valid = np.array(used, bool) & (boxes >= 1).all(1) & (images >= 1).all(1)
    boxes, images = boxes[valid], images[valid]
    factors = np.array(scale) / images
    if keep_ratio:
        longer, shorter = max(scale) / images.max(1), min(scale) / images.min(1)
        factors = np.minimum(longer, shorter)[:, None]
    return boxes * factors


def _percentiles(values: np.ndarray) -> list[float]:
    return [round(float(value), 2) for value in np.percentile(values, PERCENTILES)]
