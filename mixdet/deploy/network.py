"""What is exported: a uint8 picture in, boxes and class scores out, anchors as a constant."""

from __future__ import annotations

import mixdet.plugin  # noqa: F401 - before anything of mmdet's models

# isort: split
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from mmdet.models.dense_heads import SSDHead
from mmdet.models.task_modules.coders import DeltaXYWHBBoxCoder
from torch import Tensor, nn

from mixdet.engine.trained import TrainedNetwork
from mixdet.errors import MixDetError
from mixdet.models.backbones.base import StagedBackbone
from mixdet.models.fusing import fuse


class RawNetwork(nn.Module):
    """A detector up to boxes and class scores, before any is left out.

    Attributes:
        size: (width, height) of the input in pixels.
        channels: 'RGB' or 'BGR', their order in the input.
        levels: One dict a level, finest first: `cells`, [rows, columns]; `stride`, [x, y] pixels;
            `first`, the anchors (x1, y1, x2, y2) of the first cell, which lies in the upper left;
            `anchors`, how many the level has. The order is row, column, anchor of the cell.

    Args:
        trained: The detector.
        target: As for `fuse`.
        int8: As for `fuse`.

    Raises:
        MixDetError: The config has something that exported files cannot do.
    """

    def __init__(self, trained: TrainedNetwork, target: str = "onnx", int8: bool = False) -> None:
        super().__init__()
        head = trained.model.bbox_head
        if not isinstance(head, SSDHead) or not isinstance(head.bbox_coder, DeltaXYWHBBoxCoder):
            raise MixDetError(
                "export needs an SSDHead or MixConvSSDHead with DeltaXYWHBBoxCoder, not "
                f"{type(head).__name__}"
            )
        self.size = input_size(trained.pipeline)
        self.detector = fuse(trained.model.cpu(), target, int8=int8)
        self.sigmoid = getattr(head, "use_sigmoid_cls", False)
        preprocessor = trained.model.data_preprocessor
        divisor = preprocessor.pad_size_divisor
        if any(side % divisor for side in self.size):
            raise MixDetError(
                f"export: the input of {self.size} pixels is no multiple of "
                f"model.data_preprocessor.pad_size_divisor={divisor}"
            )
        self.channels = "RGB" if preprocessor._channel_conversion else "BGR"
        mean, std = torch.zeros(3, 1, 1), torch.ones(3, 1, 1)
        if preprocessor._enable_normalize:
            mean, std = preprocessor.mean.cpu(), preprocessor.std.cpu()
        if isinstance(self.detector.backbone, StagedBackbone):
            _scale_inputs(self.detector.backbone.conv_stem, 1 / std)
            std = None
        width, height = self.size
        self.register_buffer("mean", mean)
        self.register_buffer("row", mean.flatten().expand(3).repeat(width), persistent=False)
        self.register_buffer("std", std)
        with torch.no_grad():
            scores, _ = self._outputs(torch.zeros(1, 3, height, width))
        grids = [score.shape[-2:] for score in scores]
        generator = head.prior_generator
        anchors = generator.grid_priors(grids, device="cpu")
        self.register_buffer("anchors", torch.cat(anchors))
        self.levels = [
            {
                "cells": list(grid),
                "stride": list(map(float, stride)),
                "first": first.tolist(),
                "anchors": len(level),
            }
            for grid, stride, first, level in zip(
                grids, generator.strides, generator.base_anchors, anchors, strict=True
            )
        ]

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Detect.

        Args:
            image: (N, H, W, 3) uint8, channels as `channels` says.

        Returns:
            Boxes (N, A, 4), (x1, y1, x2, y2) in pixels of the input, inside it; scores
            (N, A, classes) in 0..1.
        """
        return self._detect(self._centred(image), self._decode)

    def of_one(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """As `forward`, of one picture, in operations that runtimes for phones know."""
        return self._detect(self._centred(image), self._decode_one)

    def of_planes(self, planes: Tensor) -> tuple[Tensor, Tensor]:
        """As `of_one`, of (1, 3, H, W) float in 0..255."""
        return self._detect(planes - self.mean, self._decode_one)

    def _centred(self, image: Tensor) -> Tensor:
        # A whole row at a time: runtimes are slow at three channels at a time
        rows = image.float().flatten(2) - self.row
        return rows.unflatten(2, (-1, 3)).permute(0, 3, 1, 2)

    def _outputs(self, centred: Tensor) -> tuple[Sequence[Tensor], Sequence[Tensor]]:
        """The head's outputs, (N, anchors * columns, H, W) a level, of class and box."""
        x = centred if self.std is None else centred / self.std
        return self.detector.bbox_head(self.detector.extract_feat(x))

    def _detect(self, centred: Tensor, decode: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
        head = self.detector.bbox_head
        classes, offsets = self._outputs(centred)
        logits = _flatten(classes, head.cls_out_channels)
        scores = (logits.sigmoid() if self.sigmoid else logits.softmax(-1))[..., : head.num_classes]
        boxes = decode(_flatten(offsets, 4))
        limit = boxes.new_tensor(self.size * 2)
        return torch.minimum(boxes.clamp(min=0), limit), scores

    def _decode(self, offsets: Tensor) -> Tensor:
        """Boxes of offsets, (N, A, 4) both: whatever N is, no constant depends on it."""
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "DeprecationWarning: onnx_delta2bbox")
            return self.detector.bbox_head.bbox_coder.decode(
                self.anchors.expand_as(offsets), offsets
            )

    def _decode_one(self, offsets: Tensor) -> Tensor:
        """Boxes of offsets, (1, A, 4) both."""
        boxes = self.detector.bbox_head.bbox_coder.decode(self.anchors, offsets.reshape(-1, 4))
        return boxes.reshape(offsets.shape)


class CandidateNetwork(RawNetwork):
    """`RawNetwork` with scores of 0 for all that does not go into NMS."""

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """As `RawNetwork`; of each level only the `nms_pre` best pairs keep their score."""
        boxes, scores = super().forward(image)
        most = self.detector.bbox_head.test_cfg.get("nms_pre", -1)
        levels = list(scores.split([level["anchors"] for level in self.levels], 1))
        for index, level in enumerate(levels):
            pairs = level.shape[1] * level.shape[2]
            if 0 < most < pairs:
                least = level.flatten(1).topk(most).values[:, -1, None, None]
                levels[index] = torch.where(level >= least, level, 0.0)
        sides = boxes[..., 2:] - boxes[..., :2]
        return boxes, torch.cat(levels, 1) * (sides > 0).all(-1, keepdim=True)


def post_processing(trained: TrainedNetwork) -> dict[str, Any]:
    """The thresholds of a detector's `test_cfg`.

    Raises:
        MixDetError: It asks for another NMS than the plain one.
    """
    cfg = trained.cfg.model.get("test_cfg") or {}
    nms = dict(cfg.get("nms") or {})
    if nms.pop("type", "nms") != "nms" or set(nms) != {"iou_threshold"}:
        raise MixDetError(
            f"model.test_cfg.nms is {cfg.get('nms')}: export needs type='nms' and iou_threshold, "
            "no more"
        )
    return {
        "score_thr": cfg.get("score_thr", 0),
        "iou_thr": nms["iou_threshold"],
        "nms_pre": cfg.get("nms_pre", -1),
        "max_per_img": cfg.get("max_per_img", 100),
        "min_bbox_size": cfg.get("min_bbox_size", -1),
    }


def input_size(pipeline: Sequence[dict]) -> tuple[int, int]:
    """(width, height) that a test pipeline, from an array on, makes of every picture.

    Raises:
        MixDetError: The pipeline does anything but resize to one size, bilinearly.
    """
    remedy = "export needs a test pipeline of LoadImageFromFile, Resize(keep_ratio=False), Pack"
    scale = None
    for step in pipeline:
        kind, others = str(step["type"]).split(".")[-1], dict(step)
        del others["type"]
        if kind == "Resize":
            scale = others.pop("scale", None)
            plain = {"keep_ratio": False, "interpolation": "bilinear", "backend": "cv2"}
            others = {key: value for key, value in others.items() if plain.get(key) != value}
        elif kind in ("PackDetInputs", "PackChannelsLast"):
            others = {}
        elif kind != "LoadImageFromNDArray":
            others = {"type": kind}
        if others:
            raise MixDetError(f"{remedy}: {kind} has {others}")
    if scale is None:
        raise MixDetError(f"{remedy}: it has no Resize")
    return tuple(scale)


def _scale_inputs(stem: nn.Module, scale: Tensor) -> None:
    """Have a convolution, or each branch of it, multiply its input by (C, 1, 1) as it computes."""
    for conv in (module for module in stem.modules() if isinstance(module, nn.Conv2d)):
        conv.weight.mul_(scale)  # fused: without gradient


def _flatten(levels: Sequence[Tensor], columns: int) -> Tensor:
    """Join (N, anchors * columns, H, W) levels into one (N, all anchors, columns) tensor."""
    flat = [level.permute(0, 2, 3, 1).reshape(level.shape[0], -1, columns) for level in levels]
    return torch.cat(flat, 1)
