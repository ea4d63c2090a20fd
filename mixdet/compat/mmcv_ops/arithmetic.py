"""What the operators share: precision, derivatives and bilinear interpolation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor


def at_least_float32(tensor: Tensor) -> Tensor:
    """Convert half precision to float32. float64 stays as it is."""
    return tensor if tensor.dtype == torch.float64 else tensor.float()


def input_gradients(
    function: Callable[..., Tensor], inputs: Sequence[Tensor], grad_output: Tensor
) -> tuple[Tensor, ...]:
    """Compute the output again, and return the gradient of each input."""
    with torch.enable_grad():
        leaves = [at_least_float32(tensor.detach()).requires_grad_() for tensor in inputs]
        output = function(*leaves)
        return torch.autograd.grad(output, leaves, grad_output.to(output.dtype))


class Corner(NamedTuple):
    """One of the four pixels that a bilinear interpolation reads, for each of several points.

    Attributes:
        index: Index of the pixel in the flattened map (H * W).
        weight: Weight of the pixel. It is differentiable with respect to the point.
    """

    index: Tensor
    weight: Tensor


def bilinear_corners(y: Tensor, x: Tensor, height: int, width: int) -> list[Corner]:
    """Return the pixels and the weights that RoIAlign uses to interpolate at some points.

    Points up to one pixel outside of the map are moved to its border. Farther points have the
    weight 0.

    Args:
        y: Rows of the points, in any shape. A whole number is the center of a row of pixels.
        x: Columns of the points, in the same shape.
        height: Rows of the map.
        width: Columns of the map.

    Returns:
        Four corners, whose tensors have the shape of `y`.
    """
    inside = ((y >= -1) & (y <= height) & (x >= -1) & (x <= width)).to(y.dtype)
    sides = []
    for position, size in ((y, height), (x, width)):
        position = position.clamp(0, size - 1)
        low = position.detach().floor()
        near_high = position - low
        high = (low + 1).clamp(max=size - 1)
        sides.append(((low.long(), 1 - near_high), (high.long(), near_high)))
    return [
        Corner(row * width + column, inside * row_weight * column_weight)
        for row, row_weight in sides[0]
        for column, column_weight in sides[1]
    ]
