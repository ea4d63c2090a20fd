"""The SSD anchors of the TensorFlow Object Detection API."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from mmdet.models.task_modules.prior_generators import AnchorGenerator
from mmdet.registry import TASK_UTILS
from torch import Tensor

RATIOS = (1.0, 2.0, 1 / 2, 3.0, 1 / 3)


@TASK_UTILS.register_module()
class TFSSDAnchorGenerator(AnchorGenerator):
    """Anchors of one scale a level, in five ratios, and one square between two scales.

    This is the `ssd_anchor_generator` of the TensorFlow Object Detection API, after SSD (arXiv
    1512.02325, section 2.2), with its default of three anchors on the first level. These three
    anchors have two scales, which mmdet's `SSDAnchorGenerator` does not support.

    Scales rise linearly over the levels. As pairs of scale and ratio of width to height, the first
    level has (0.1, 1), (`min_scale`, 2) and (`min_scale`, 1/2). Every other level has its scale s
    in the ratios 1, 2, 1/2, 3 and 1/3, and a square of the scale sqrt(s s'). Here s' is the scale
    of the next level, or 1 for the last level. The cells divide the image exactly, and the anchors
    are centered in them. On a grid of 3 cells, a cell of a 320-pixel image has a side of 320/3
    pixels. mmdet takes 107.

    Args:
        strides: Side of a cell in pixels for each level, finest first. Rounded values are enough.
        input_size: Side in pixels of the square image.
        min_scale: Scale of the first level, as a fraction of the image's side.
        max_scale: Scale of the last level, as a fraction of the image's side.
    """

    def __init__(
        self,
        strides: Sequence[int],
        input_size: int,
        min_scale: float = 0.2,
        max_scale: float = 0.95,
    ) -> None:
        step = (max_scale - min_scale) / max(len(strides) - 1, 1)
        scales = [min_scale + step * level for level in range(len(strides))] + [1.0]
        self.shapes = [[(0.1, 1.0), (min_scale, 2.0), (min_scale, 1 / 2)]] + [
            [(scale, ratio) for ratio in RATIOS] + [((scale * next_scale) ** 0.5, 1.0)]
            for scale, next_scale in pairwise(scales[1:])
        ]
        self.input_size = input_size
        exact_strides = [input_size / round(input_size / stride) for stride in strides]
        super().__init__(exact_strides, ratios=[1.0], scales=[1.0])

    def gen_base_anchors(self) -> list[Tensor]:
        """Return the anchors of each level's first cell, (anchors, 4), (x1, y1, x2, y2) pixels."""
        anchors = []
        for (stride, _), shapes in zip(self.strides, self.shapes, strict=True):
            scales, ratios = torch.tensor(shapes).T
            sizes = self.input_size * scales * torch.stack([ratios, 1 / ratios]).sqrt()
            half = sizes.T / 2
            anchors.append(torch.cat([stride / 2 - half, stride / 2 + half], 1))
        return anchors
