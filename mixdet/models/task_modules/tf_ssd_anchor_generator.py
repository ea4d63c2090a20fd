"""The anchors of SSD as the TensorFlow Object Detection API makes them."""

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

    The `ssd_anchor_generator` of the TensorFlow Object Detection API with its default of three
    anchors on the first level, after SSD (arXiv 1512.02325, section 2.2). mmdet's
    `SSDAnchorGenerator` cannot make that level: its three anchors have two scales.

    Scales rise linearly over the levels. The first level has, as (scale, width to height), (0.1,
    1), (`min_scale`, 2), (`min_scale`, 1/2); the others have their scale s in the ratios 1, 2, 1/2,
    3, 1/3, and a square of sqrt(s s'), s' being the next level's scale and 1 after the last.
    Centers lie in the middle of the cells, which divide the image exactly: 320/3 pixels each on
    a grid of 3, where mmdet would step 107.

    Args:
        strides: Pixels a cell on each level, finest first; rounded ones will do.
        input_size: Side in pixels of the square image.
        min_scale: Scale of the first level, a share of the image's side.
        max_scale: Scale of the last level.
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
            [(scale, ratio) for ratio in RATIOS] + [((scale * following) ** 0.5, 1.0)]
            for scale, following in pairwise(scales[1:])
        ]
        self.input_size = input_size
        exact = [input_size / round(input_size / stride) for stride in strides]
        super().__init__(exact, ratios=[1.0], scales=[1.0])

    def gen_base_anchors(self) -> list[Tensor]:
        """Make the anchors of each level's first cell, (anchors, 4) in (x1, y1, x2, y2) pixels."""
        anchors = []
        for (stride, _), shapes in zip(self.strides, self.shapes, strict=True):
            scales, ratios = torch.tensor(shapes).T
            sizes = self.input_size * scales * torch.stack([ratios, 1 / ratios]).sqrt()
            half = sizes.T / 2
            anchors.append(torch.cat([stride / 2 - half, stride / 2 + half], 1))
        return anchors
