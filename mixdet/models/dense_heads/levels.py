"""Join the outputs of all levels of a head into one tensor."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def flatten_levels(levels: Sequence[Tensor], columns: int) -> Tensor:
    """Join the outputs of a head's levels into one tensor with an entry per anchor.

    Args:
        levels: One (N, anchors * columns, H, W) tensor per level.
        columns: Values per anchor: the class scores, or the 4 box offsets.

    Returns:
        (N, A, columns), where A is the number of anchors of all levels. As in mmdet's
        `grid_priors`, anchors are ordered by level, row, column and place in the cell.
    """
    flat = [level.permute(0, 2, 3, 1).reshape(level.shape[0], -1, columns) for level in levels]
    return torch.cat(flat, 1)
