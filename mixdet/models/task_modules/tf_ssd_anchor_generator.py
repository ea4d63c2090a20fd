"""The anchors of SSD in the TensorFlow Object Detection API."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from mmdet.models.task_modules.prior_generators import AnchorGenerator
from mmdet.registry import TASK_UTILS
from mmengine.utils import to_2tuple
from torch import Tensor

RATIOS = (1.0, 2.0, 1 / 2, 3.0, 1 / 3)


@TASK_UTILS.register_module()
class TFSSDAnchorGenerator(AnchorGenerator):
    """The anchors of `ssd_anchor_generator` in the TensorFlow Object Detection API.

    The anchors follow SSD (arXiv 1512.02325, section 2.2). The first level has three per cell,
    which is TensorFlow's default, and every other level has six. mmdet's `SSDAnchorGenerator`
    cannot make the first level, because the three anchors of this level have two different scales.

    The scale of an anchor is the square root of its area, as a fraction of the image's shorter
    side, as in TensorFlow. So an anchor of ratio 1 is square even if the image is not. The ratio of
    an anchor is its width divided by its height. The first level
    has the (scale, ratio) pairs (0.1, 1), (`min_scale`, 2) and (`min_scale`, 1/2). The scales of
    the levels rise linearly. A later level with scale s has one anchor for each of the ratios 1, 2,
    1/2, 3 and 1/3. It also has a square of scale sqrt(s s'), where s' is the scale of the next
    level, or 1 if there is none.

    The cells divide the image exactly, and each anchor is centered in its cell. For example, a grid
    of 3 x 3 cells on an image of 320 pixels has cells with a side of 320/3 pixels. mmdet's SSDLite
    config rounds this to 107.

    Args:
        strides: Side of a cell in pixels for each level, smallest first, or (x, y) if the sides
            differ. Rounded values are enough, since the exact sides are computed from `input_size`.
        input_size: Size of the image in pixels: (width, height), or the side of a square image.
        min_scale: Scale of the first level, as a fraction of the image's shorter side.
        max_scale: Scale of the last level, as a fraction of the image's shorter side.
    """

    def __init__(
        self,
        strides: Sequence[int | tuple[int, int]],
        input_size: int | tuple[int, int],
        min_scale: float = 0.2,
        max_scale: float = 0.95,
    ) -> None:
        step = (max_scale - min_scale) / max(len(strides) - 1, 1)
        scales = [min_scale + step * level for level in range(len(strides))] + [1.0]
        self.shapes = [[(0.1, 1.0), (min_scale, 2.0), (min_scale, 1 / 2)]] + [
            [(scale, ratio) for ratio in RATIOS] + [((scale * next_scale) ** 0.5, 1.0)]
            for scale, next_scale in pairwise(scales[1:])
        ]
        self.input_wh = width, height = to_2tuple(input_size)
        sides = [to_2tuple(stride) for stride in strides]
        exact_strides = [(width / round(width / x), height / round(height / y)) for x, y in sides]
        super().__init__(exact_strides, ratios=[1.0], scales=[1.0])

    def gen_base_anchors(self) -> list[Tensor]:
        """Return the anchors of each level's first cell, (n, 4), as (x1, y1, x2, y2) in pixels."""
        anchors = []
        for (x, y), shapes in zip(self.strides, self.shapes, strict=True):
            scales, ratios = torch.tensor(shapes).T
            sizes = min(self.input_wh) * scales * torch.stack([ratios, 1 / ratios]).sqrt()
            center, half = torch.tensor([x / 2, y / 2]), sizes.T / 2
            anchors.append(torch.cat([center - half, center + half], 1))
        return anchors
