"""The networks that are exported: they take uint8 images and return boxes and class scores."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import mixdet.plugin

import torch
from mmdet.models.dense_heads import SSDHead
from mmdet.models.task_modules.coders import DeltaXYWHBBoxCoder
from torch import Tensor, nn

from mixdet.errors import MixDetError
from mixdet.inference.trained import TrainedNetwork
from mixdet.models.backbones.base import StagedBackbone
from mixdet.models.dense_heads.levels import flatten_levels
from mixdet.models.fusing import fuse


class RawNetwork(nn.Module):
    """A network that turns uint8 images into all boxes and class scores, before any selection.

    Attributes:
        input_wh: Width and height of the input in pixels.
        channel_order: 'RGB' or 'BGR', the order of the input's channels.
        levels: One dict per feature level, finest first. `cells` is [rows, columns]. `stride` is
            [x, y] in pixels. `first` holds the anchors (x1, y1, x2, y2) of the upper left cell.
            `anchors` is the level's number of anchors. The anchors are ordered by row, then by
            column, and within a cell as in `first`.

    Args:
        trained: The detector.
        target: As for `mixdet.deploy.fuse`.
        int8: As for `mixdet.deploy.fuse`.

    Raises:
        MixDetError: The config asks for something that exported files do not support.
    """

    def __init__(self, trained: TrainedNetwork, target: str = "onnx", int8: bool = False) -> None:
        super().__init__()
        head = trained.model.bbox_head
        if not isinstance(head, SSDHead) or not isinstance(head.bbox_coder, DeltaXYWHBBoxCoder):
            coder = type(getattr(head, "bbox_coder", None)).__name__
            raise MixDetError(
                "export supports SSDHead and MixConvSSDHead with DeltaXYWHBBoxCoder only; "
                f"model.bbox_head is {type(head).__name__}, and its bbox_coder is {coder}"
            )
        self.input_wh = pipeline_input_wh(trained.pipeline)
        self.detector = fuse(trained.model.cpu(), target, int8=int8)
        self.sigmoid = getattr(head, "use_sigmoid_cls", False)
        preprocessor = trained.model.data_preprocessor
        divisor = preprocessor.pad_size_divisor
        if any(side % divisor for side in self.input_wh):
            raise MixDetError(
                f"export: the test pipeline resizes to {self.input_wh}, which is not a multiple "
                f"of model.data_preprocessor.pad_size_divisor={divisor}: change one of them"
            )
        self.channel_order = "RGB" if preprocessor._channel_conversion else "BGR"
        mean, std = torch.zeros(3, 1, 1), torch.ones(3, 1, 1)
        if preprocessor._enable_normalize:
            mean, std = preprocessor.mean.cpu(), preprocessor.std.cpu()
        if isinstance(self.detector.backbone, StagedBackbone):
            _scale_weights(self.detector.backbone.conv_stem, 1 / std)
            std = None
        width, height = self.input_wh
        self.register_buffer("mean", mean)
        mean_row = mean.flatten().expand(3).repeat(width)
        self.register_buffer("mean_row", mean_row, persistent=False)
        self.register_buffer("std", std)
        with torch.no_grad():
            scores, _ = self._head_outputs(torch.zeros(1, 3, height, width))
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
        """Detect objects in images.

        Args:
            image: (N, H, W, 3) uint8, with channels in `channel_order`.

        Returns:
            Boxes (N, A, 4) as (x1, y1, x2, y2) in pixels, clipped to the input, and scores
            (N, A, classes) in 0..1.
        """
        return self._detect(self._centered(image), self._decode)

    def forward_one_image(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Like `forward` with N = 1, in operations that the runtimes of phones support."""
        return self._detect(self._centered(image), self._decode_one_image)

    def forward_planes(self, planes: Tensor) -> tuple[Tensor, Tensor]:
        """Like `forward_one_image`, for an image of (1, 3, H, W) float in 0..255."""
        return self._detect(planes - self.mean, self._decode_one_image)

    def _centered(self, image: Tensor) -> Tensor:
        """Subtract the mean from (N, H, W, 3), and return (N, 3, H, W)."""
        # Runtimes are slow on a last dimension of 3, so the columns and channels are flattened.
        rows = image.float().flatten(2) - self.mean_row
        return rows.unflatten(2, (-1, 3)).permute(0, 3, 1, 2)

    def _head_outputs(self, centered: Tensor) -> tuple[Sequence[Tensor], Sequence[Tensor]]:
        """Return class logits and box offsets, (N, anchors * values, H, W) for each level."""
        x = centered if self.std is None else centered / self.std
        return self.detector.bbox_head(self.detector.extract_feat(x))

    def _detect(
        self, centered: Tensor, decode: Callable[[Tensor], Tensor]
    ) -> tuple[Tensor, Tensor]:
        head = self.detector.bbox_head
        class_levels, offset_levels = self._head_outputs(centered)
        logits = flatten_levels(class_levels, head.cls_out_channels)
        scores = (logits.sigmoid() if self.sigmoid else logits.softmax(-1))[..., : head.num_classes]
        boxes = decode(flatten_levels(offset_levels, 4))
        limit = boxes.new_tensor(self.input_wh * 2)
        return torch.minimum(boxes.clamp(min=0), limit), scores

    def _decode(self, offsets: Tensor) -> Tensor:
        """Turn offsets (N, A, 4) into boxes (N, A, 4). The exported graph works for every N."""
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "DeprecationWarning: onnx_delta2bbox")
            return self.detector.bbox_head.bbox_coder.decode(
                self.anchors.expand_as(offsets), offsets
            )

    def _decode_one_image(self, offsets: Tensor) -> Tensor:
        """Turn offsets (1, A, 4) into boxes (1, A, 4)."""
        boxes = self.detector.bbox_head.bbox_coder.decode(self.anchors, offsets.reshape(-1, 4))
        return boxes.reshape(offsets.shape)


class CandidateNetwork(RawNetwork):
    """A `RawNetwork` whose scores are 0 for every pair of box and class that NMS must ignore."""

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Like `RawNetwork.forward`, but only the candidates of NMS keep their scores.

        The candidates are the `nms_pre` best pairs of box and class of each level. An empty box is
        not a candidate.
        """
        boxes, scores = super().forward(image)
        nms_pre = self.detector.bbox_head.test_cfg.get("nms_pre", -1)
        levels = list(scores.split([level["anchors"] for level in self.levels], 1))
        for index, level in enumerate(levels):
            pairs = level.shape[1] * level.shape[2]
            if 0 < nms_pre < pairs:
                lowest = level.flatten(1).topk(nms_pre).values[:, -1, None, None]
                levels[index] = torch.where(level >= lowest, level, 0.0)
        sides = boxes[..., 2:] - boxes[..., :2]
        return boxes, torch.cat(levels, 1) * (sides > 0).all(-1, keepdim=True)


def postprocess_settings(trained: TrainedNetwork) -> dict[str, Any]:
    """Return the thresholds of a detector's `test_cfg`, as `mixdet.json` holds them.

    Raises:
        MixDetError: The NMS of the config is not of the type `nms`, lacks `iou_threshold`, or has
            other options.
    """
    cfg = trained.cfg.model.get("test_cfg") or {}
    nms = dict(cfg.get("nms") or {})
    if nms.pop("type", "nms") != "nms" or set(nms) != {"iou_threshold"}:
        raise MixDetError(
            f"model.test_cfg.nms is {cfg.get('nms')}: export supports only type='nms' with an "
            "iou_threshold"
        )
    return {
        "score_thr": cfg.get("score_thr", 0),
        "iou_thr": nms["iou_threshold"],
        "nms_pre": cfg.get("nms_pre", -1),
        "max_per_img": cfg.get("max_per_img", 100),
        "min_bbox_size": cfg.get("min_bbox_size", -1),
    }


def pipeline_input_wh(pipeline: Sequence[dict]) -> tuple[int, int]:
    """Return the width and height that a test pipeline resizes every image to.

    Args:
        pipeline: The steps of `TrainedNetwork.pipeline`, which load an array instead of a file.

    Raises:
        MixDetError: The pipeline does anything other than a bilinear resize to one size.
    """
    remedy = "export needs a test pipeline of LoadImageFromFile, Resize(keep_ratio=False), Pack"
    scale = None
    for step in pipeline:
        name, unsupported = str(step["type"]).split(".")[-1], dict(step)
        del unsupported["type"]
        if name == "Resize":
            scale = unsupported.pop("scale", None)
            supported = {"keep_ratio": False, "interpolation": "bilinear", "backend": "cv2"}
            unsupported = {
                key: value for key, value in unsupported.items() if supported.get(key) != value
            }
        elif name in ("PackDetInputs", "PackChannelsLast"):
            unsupported = {}
        elif name != "LoadImageFromNDArray":
            unsupported = {"type": name}
        if unsupported:
            raise MixDetError(f"{remedy}; {name} has {unsupported}")
    if scale is None:
        raise MixDetError(f"{remedy}; it has no Resize")
    return tuple(scale)


def _scale_weights(stem: nn.Module, scale: Tensor) -> None:
    """Multiply a stem's weights by factors (3, 1, 1), instead of multiplying the stem's input."""
    for conv in (module for module in stem.modules() if isinstance(module, nn.Conv2d)):
        conv.weight.mul_(scale)  # allowed in place, since a fused network needs no gradients
