"""The sizes of the boxes against a model's anchors, and anchors that would fit better."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from mmdet.registry import TASK_UTILS
from mmengine.config import Config
from torch import nn

from mixdet.data_check.splits import Split

MATCH = 0.5  # the IoU from which an anchor learns a box by itself
SAMPLE = 20_000  # boxes are enough for the centers of clusters
PERCENTILES = (5, 25, 50, 75, 95)


@dataclass(frozen=True)
class Coverage:
    """How well anchor shapes fit box shapes, each pair laid center on center.

    Attributes:
        mean_iou: Mean over the boxes of the best anchor's IoU.
        matched: Share of boxes whose best IoU is at least 0.5.
    """

    mean_iou: float
    matched: float

    def __str__(self) -> str:
        return (
            f"mean best IoU {self.mean_iou:.3f}, {100 * self.matched:.1f} % of boxes at 0.5 or more"
        )


@dataclass(frozen=True)
class AnchorFit:
    """Boxes at the training size against anchors.

    Attributes:
        boxes: Number of boxes, crowds left out.
        input_size: (width, height) in pixels that images are scaled to, augmentation left out.
        sides: Percentiles (5, 25, 50, 75, 95) of the root of a box's area, in pixels.
        ratios: The same percentiles of width to height.
        anchors: Number of anchor shapes.
        now: Coverage by the model's anchors.
        clusters: (width, height) of as many k-means centers (distance 1 - IoU), small to large.
        by_clusters: Coverage by those: what any anchors of that number can be measured against.
        settings: `min_sizes` and `max_sizes` that fit better, where the anchor generator has them.
        by_settings: Coverage by those.
    """

    boxes: int
    input_size: tuple[int, int]
    sides: list[float]
    ratios: list[float]
    anchors: int
    now: Coverage
    clusters: list[tuple[int, int]]
    by_clusters: Coverage
    settings: dict[str, list[int]] | None = None
    by_settings: Coverage | None = None

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def fit_anchors(split: Split, cfg: Config, model: nn.Module) -> AnchorFit | None:
    """Hold the training boxes against the model's anchors.

    Args:
        split: The training data.
        cfg: The config that the model was built from.
        model: The model.

    Returns:
        None where the model has no anchors, the images are not scaled to a known size, or there
        is no box.
    """
    where = "rpn_head" if hasattr(model, "rpn_head") else "bbox_head"
    generator = getattr(getattr(model, where, None), "prior_generator", None)
    scale = _training_scale(cfg)
    boxes = _scaled(split, *scale) if scale else np.empty((0, 2))
    if not hasattr(generator, "base_anchors") or not len(boxes):
        return None
    shapes = _shapes(generator)
    clusters = cluster(boxes, min(len(shapes), len(boxes)))
    now = coverage(boxes, shapes)
    config = cfg.model[where]["anchor_generator"]
    settings, by_settings = _settings(generator, config, boxes), None
    if settings:
        other = TASK_UTILS.build({**config, "strides": generator.strides, **settings})
        by_settings = coverage(boxes, _shapes(other))
        if by_settings.mean_iou <= now.mean_iou:
            settings = by_settings = None
    return AnchorFit(
        boxes=len(boxes),
        input_size=scale[0],
        sides=_percentiles(np.sqrt(boxes.prod(1))),
        ratios=_percentiles(boxes[:, 0] / boxes[:, 1]),
        anchors=len(shapes),
        now=now,
        clusters=[(round(width), round(height)) for width, height in clusters.tolist()],
        by_clusters=coverage(boxes, clusters),
        settings=settings,
        by_settings=by_settings,
    )


def coverage(boxes: np.ndarray, anchors: np.ndarray) -> Coverage:
    """How well anchors (k, 2) fit boxes (n, 2), widths and heights in the same unit."""
    best = np.concatenate([shape_iou(part, anchors).max(1) for part in _parts(boxes)])
    return Coverage(float(best.mean()), float((best >= MATCH).mean()))


def shape_iou(boxes: np.ndarray, anchors: np.ndarray) -> np.ndarray:
    """IoU (n, k) of boxes (n, 2) and anchors (k, 2) in (width, height), laid center on center."""
    common = np.minimum(boxes[:, None], anchors).prod(-1)
    return common / (boxes.prod(1)[:, None] + anchors.prod(1) - common)


def cluster(boxes: np.ndarray, count: int, rounds: int = 50) -> np.ndarray:
    """k-means with 1 - IoU for a distance, as YOLO9000 has it (arXiv 1612.08242, section 2).

    It starts from evenly spaced quantiles of the area, so it has no chance in it.

    Args:
        boxes: (n, 2) widths and heights.
        count: Number of clusters, at most n.
        rounds: Most rounds.

    Returns:
        Their centers (count, 2), small to large.
    """
    boxes = boxes[np.argsort(boxes.prod(1), kind="stable")]
    boxes = boxes[np.linspace(0, len(boxes) - 1, min(len(boxes), SAMPLE)).astype(int)]
    centers = boxes[((np.arange(count) + 0.5) / count * len(boxes)).astype(int)]
    nearest = None
    for _ in range(rounds):
        before, nearest = (
            nearest,
            np.concatenate([shape_iou(part, centers).argmax(1) for part in _parts(boxes)]),
        )
        if before is not None and (before == nearest).all():
            break
        for index in np.unique(nearest):
            centers[index] = np.median(boxes[nearest == index], axis=0)
    return centers[np.argsort(centers.prod(1), kind="stable")]


def _parts(boxes: np.ndarray) -> list[np.ndarray]:
    return np.array_split(boxes, -(-len(boxes) // SAMPLE))


def _shapes(generator) -> np.ndarray:
    """Different (width, height) of the anchors, (k, 2) in pixels."""
    corners = np.concatenate([anchors.numpy() for anchors in generator.base_anchors]).astype(float)
    return np.unique((corners[:, 2:] - corners[:, :2]).round(3), axis=0)


def _settings(generator, config: dict, boxes: np.ndarray) -> dict[str, list[int]] | None:
    """Sizes for an SSD generator: every level gets an equal share of the boxes.

    Boxes smaller than the finest cell are left out: what meets them is chance, whatever the size.
    """
    sides = np.sqrt(boxes.prod(1))
    sides = sides[sides >= min(generator.strides[0])]
    if "min_sizes" not in config or not len(sides):
        return None
    levels = np.arange(len(generator.base_anchors) + 1)
    edges = np.quantile(sides, (levels + 0.5) / len(levels)).round().astype(int)
    edges = np.maximum.accumulate(edges - levels) + levels  # strictly rising
    return {"min_sizes": edges[:-1].tolist(), "max_sizes": edges[1:].tolist()}


def _training_scale(cfg: Config) -> tuple[tuple[int, int], bool] | None:
    """What the training pipeline, or else the test's, resizes to, and if it keeps the ratio."""

    def visit(node) -> Iterator[dict]:
        if isinstance(node, dict):
            if node.get("type") == "Resize" and isinstance(node.get("scale"), (list, tuple)):
                yield node
            node = list(node.values())
        if isinstance(node, (list, tuple)):
            for child in node:
                yield from visit(child)

    for loader in ("train_dataloader", "test_dataloader"):
        for step in visit(cfg.get(loader)):
            return tuple(step["scale"]), step.get("keep_ratio", False)
    return None


def _scaled(split: Split, scale: tuple[int, int], keep_ratio: bool) -> np.ndarray:
    """Widths and heights (n, 2) in pixels, after the resize, of the boxes that train."""
    trains = [
        not annotation.get("iscrowd")
        and split.name_of.get(annotation.get("category_id")) in split.classes
        for annotation in split.annotations
    ]
    boxes, images = split.boxes[:, 2:], split.sizes
    with np.errstate(invalid="ignore"):
        kept = np.array(trains, bool) & (boxes >= 1).all(1) & (images >= 1).all(1)
    boxes, images = boxes[kept], images[kept]
    factors = np.array(scale) / images
    if keep_ratio:
        longer, shorter = max(scale) / images.max(1), min(scale) / images.min(1)
        factors = np.minimum(longer, shorter)[:, None]
    return boxes * factors


def _percentiles(values: np.ndarray) -> list[float]:
    return [round(float(value), 2) for value in np.percentile(values, PERCENTILES)]
