"""RoIAlign, RoIPool and deformable RoI pooling.

Each operator pools every region of interest (RoI) into a grid of h x w bins. RoIs are (N, 5): index
of the image, then (x1, y1, x2, y2) in pixels of the image. Feature maps are (B, C, H, W), outputs
are (N, C, h, w).
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch
import torchvision
from torch import Tensor
from torch.nn import functional as F

from mixdet.compat.mmcv_ops.arithmetic import at_least_float32, bilinear_corners, input_gradients

MAX_POOL = 0  # the `pool_mode` of mmcv; the other one is 1, the average
NO_SAMPLE = -1
MAX_SAMPLES = 2**25  # values that `roi_align_forward` computes at once before it takes the maximum


def roi_align_forward(
    input: Tensor,
    rois: Tensor,
    output: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    pool_mode: int,
    aligned: bool,
) -> None:
    """Write RoIAlign (He et al., arXiv 1703.06870) into `output`.

    Args:
        input: Feature maps.
        rois: The RoIs.
        output: Receives the average or the maximum of the samples in each bin.
        argmax_y: For the maximum only, in the shape of `output`. Receives the row of the largest
            sample among the samples of its bin, or -1. (mmcv stores its row in the feature map,
            which half precision rounds.)
        argmax_x: Receives its column.
        aligned_height: Rows of bins.
        aligned_width: Columns of bins.
        spatial_scale: Pixels of the feature map per pixel of the image.
        sampling_ratio: Samples along each side of a bin. 0 stands for one per pixel of the map.
        pool_mode: 0 for the maximum, 1 for the average.
        aligned: Shift the RoIs by half a pixel, so that a pixel's value is at its center.
    """
    features, size = at_least_float32(input), (aligned_height, aligned_width)
    rois = rois.to(features.dtype)
    if pool_mode != MAX_POOL:
        align = torchvision.ops.roi_align
        output.copy_(align(features, rois, size, spatial_scale, sampling_ratio, aligned))
        return
    _, sides = _spans(rois, spatial_scale, aligned)
    for (rows, columns), chosen in _equal_grids(_grids(sides, size, sampling_ratio)):
        if rows * columns == 0:  # an empty RoI has no sample
            output[chosen], argmax_y[chosen], argmax_x[chosen] = 0, NO_SAMPLE, NO_SAMPLE
            continue
        fine = (aligned_height * rows, aligned_width * columns)
        for part in chosen.split(max(1, MAX_SAMPLES // (input.size(1) * fine[0] * fine[1]))):
            # A RoIAlign of one bin per sample computes the samples
            samples = torchvision.ops.roi_align(
                features, rois[part], fine, spatial_scale, 1, aligned
            )
            maxima, index = F.max_pool2d(samples, (rows, columns), return_indices=True)
            output[part] = maxima.to(output.dtype)
            argmax_y[part] = (index // fine[1] % rows).to(argmax_y.dtype)
            argmax_x[part] = (index % fine[1] % columns).to(argmax_x.dtype)


def roi_align_backward(
    grad_output: Tensor,
    rois: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
    grad_input: Tensor,
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    pool_mode: int,
    aligned: bool,
) -> None:
    """Write the gradient of the feature maps into `grad_input`. See `roi_align_forward`."""
    rois = rois.to(at_least_float32(grad_output).dtype)
    size = (aligned_height, aligned_width)
    if pool_mode == MAX_POOL:
        starts, sides = _spans(rois, spatial_scale, aligned)
        grids = _grids(sides, size, sampling_ratio).clamp(min=1)
        positions = []
        for axis, argmax in enumerate((argmax_y, argmax_x)):
            inner = (argmax.to(rois.dtype) + 0.5) / _column(grids, axis)
            positions.append(_sample_positions(axis, size[axis], starts, sides, inner))
        gradient = torch.where(argmax_y == NO_SAMPLE, 0, grad_output)
        planes = _planes(rois, grad_input).view(*grad_output.shape[:2], 1, 1)
        total = rois.new_zeros(grad_input.numel())
        for corner in bilinear_corners(*positions, *grad_input.shape[2:]):
            index = planes * grad_input[0, 0].numel() + corner.index
            total.scatter_add_(0, index.flatten(), (gradient * corner.weight).flatten())
        grad_input.copy_(total.view_as(grad_input))
        return
    pool = partial(
        torchvision.ops.roi_align,
        boxes=rois,
        output_size=size,
        spatial_scale=spatial_scale,
        sampling_ratio=sampling_ratio,
        aligned=aligned,
    )
    # The average is linear in the features, so their values do not matter
    (gradient,) = input_gradients(pool, [torch.zeros_like(grad_input)], grad_output)
    grad_input.copy_(gradient)


def roi_pool_forward(
    input: Tensor,
    rois: Tensor,
    output: Tensor,
    argmax: Tensor,
    pooled_height: int,
    pooled_width: int,
    spatial_scale: float,
) -> None:
    """Write RoIPool (Girshick, arXiv 1504.08083) into `output`.

    mmcv and torchvision differ if a RoI's corners are not whole pixels of the map. torchvision
    rounds the corners. mmcv's bins contain each pixel that they touch.

    Args:
        input: Feature maps.
        rois: The RoIs. x2 and y2 belong to them.
        output: Receives the maximum of each bin, and 0 for an empty bin.
        argmax: Receives the index of each maximum in the flattened map, or -1 for an empty bin.
        pooled_height: Rows of bins.
        pooled_width: Columns of bins.
        spatial_scale: Pixels of the feature map per pixel of the image.
    """
    height, width = input.shape[2:]
    corners = at_least_float32(rois)[:, 1:] + rois.new_tensor([0, 0, 1, 1])
    x1, y1, x2, y2 = (corners * spatial_scale).unbind(1)
    rows = _bin_limits(y1, y2, pooled_height, height)
    columns = _bin_limits(x1, x2, pooled_width, width)
    output.zero_()
    argmax.fill_(-1)
    pixels = torch.arange(height * width, device=input.device).view(height, width)
    for n, image in enumerate(rois[:, 0].long().tolist()):
        for i, (top, bottom) in enumerate(rows[n]):
            for j, (left, right) in enumerate(columns[n]):
                if bottom > top and right > left:
                    part = input[image, :, top:bottom, left:right].flatten(1)
                    output[n, :, i, j], index = part.max(1)
                    place = pixels[top:bottom, left:right].flatten()
                    argmax[n, :, i, j] = place[index].to(argmax.dtype)


def roi_pool_backward(
    grad_output: Tensor,
    rois: Tensor,
    argmax: Tensor,
    grad_input: Tensor,
    pooled_height: int,
    pooled_width: int,
    spatial_scale: float,
) -> None:
    """Write the gradient of the feature maps into `grad_input`. See `roi_pool_forward`."""
    planes = _planes(rois, grad_input).view(*grad_output.shape[:2], 1, 1)
    index = planes * grad_input[0, 0].numel() + argmax.long()
    total = at_least_float32(grad_input).new_zeros(grad_input.numel())
    full = argmax >= 0
    total.scatter_add_(0, index[full], grad_output[full].to(total.dtype))
    grad_input.copy_(total.view_as(grad_input))


def deform_roi_pool_forward(
    input: Tensor,
    rois: Tensor,
    offset: Tensor,
    output: Tensor,
    pooled_height: int,
    pooled_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    gamma: float,
) -> None:
    """Write deformable RoI pooling (Dai et al., arXiv 1703.06211) into `output`.

    It is an aligned RoIAlign whose bins are moved.

    Args:
        input: Feature maps.
        rois: The RoIs.
        offset: Offsets (x, y) of the bins, (N, 2, h, w), or an empty tensor. The unit is `gamma`
            times the side of the RoI.
        output: Receives the average of the samples in each bin.
        pooled_height: Rows of bins.
        pooled_width: Columns of bins.
        spatial_scale: As in `roi_align_forward`.
        sampling_ratio: As in `roi_align_forward`.
        gamma: Unit of the offsets.
    """
    pool = _deformable_pool(rois, output, spatial_scale, sampling_ratio, gamma)
    output.copy_(pool(at_least_float32(input), at_least_float32(offset)))


def deform_roi_pool_backward(
    grad_output: Tensor,
    input: Tensor,
    rois: Tensor,
    offset: Tensor,
    grad_input: Tensor,
    grad_offset: Tensor,
    pooled_height: int,
    pooled_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    gamma: float,
) -> None:
    """Write the gradients of features and offsets. See `deform_roi_pool_forward`."""
    if len(rois) == 0:
        grad_input.zero_()
        return
    pool = _deformable_pool(rois, grad_output, spatial_scale, sampling_ratio, gamma)
    if offset.numel() == 0:
        pool = partial(pool, offset=offset)
    inputs = [input, offset] if offset.numel() else [input]
    for result, gradient in zip(
        (grad_input, grad_offset), input_gradients(pool, inputs, grad_output), strict=False
    ):
        result.copy_(gradient)


def _deformable_pool(
    rois: Tensor, output: Tensor, spatial_scale: float, sampling_ratio: int, gamma: float
) -> partial:
    """Return a function of (input, offset) with the other arguments of the operator."""
    return partial(
        _pool_moved_bins,
        rois=rois,
        size=tuple(output.shape[2:]),
        spatial_scale=spatial_scale,
        sampling_ratio=sampling_ratio,
        gamma=gamma,
    )


def _pool_moved_bins(
    input: Tensor,
    offset: Tensor,
    *,
    rois: Tensor,
    size: tuple[int, int],
    spatial_scale: float,
    sampling_ratio: int,
    gamma: float,
) -> Tensor:
    """Compute `deform_roi_pool_forward`, differentiably."""
    channels, height, width = input.shape[1:]
    starts, sides = _spans(rois.to(input.dtype), spatial_scale, True)
    pixels = input.permute(0, 2, 3, 1).reshape(-1, channels)
    first = rois[:, 0].long() * height * width  # index of each RoI's image in `pixels`
    if not offset.numel():
        offset = input.new_zeros(len(rois), 2, *size)
    output = input.new_zeros(len(rois), channels, *size)
    for (rows, columns), chosen in _equal_grids(_grids(sides, size, sampling_ratio)):
        spans = starts[chosen], sides[chosen]
        moves = offset[chosen] * gamma * spans[1].flip(1).view(-1, 2, 1, 1)  # (n, (x, y), h, w)
        pooled = input.new_zeros(len(chosen), *size, channels)
        for sample in range(rows * columns):
            row, column = divmod(sample, columns)
            y = _sample_positions(0, size[0], *spans, (row + 0.5) / rows)
            x = _sample_positions(1, size[1], *spans, (column + 0.5) / columns)
            points = (y[:, 0] + moves[:, 1], x[:, 0] + moves[:, 0])
            for corner in bilinear_corners(*points, height, width):
                values = pixels[first[chosen].view(-1, 1, 1) + corner.index]
                pooled = pooled + values * corner.weight.unsqueeze(-1)
        output = output.index_put((chosen,), pooled.permute(0, 3, 1, 2) / max(1, rows * columns))
    return output


def _spans(rois: Tensor, spatial_scale: float, aligned: bool) -> tuple[Tensor, Tensor]:
    """Return starts and sides of RoIs in pixels of the map, each (N, 2) with (y, x)."""
    corners = rois[:, 1:] * spatial_scale - (0.5 if aligned else 0)
    starts = corners[:, [1, 0]]
    sides = corners[:, [3, 2]] - starts
    return starts, sides if aligned else sides.clamp(min=1)


def _grids(sides: Tensor, size: tuple[int, int], sampling_ratio: int) -> Tensor:
    """Return rows and columns of samples in a bin of each RoI, (N, 2)."""
    if sampling_ratio > 0:
        return torch.full_like(sides, sampling_ratio, dtype=torch.long)
    return (sides / sides.new_tensor(size)).ceil().clamp(min=0).long()


def _equal_grids(grids: Tensor) -> Iterator[tuple[list[int], Tensor]]:
    """Yield each distinct grid, and the indices of the RoIs that have it."""
    distinct, group = grids.unique(dim=0, return_inverse=True)
    for number, grid in enumerate(distinct.tolist()):
        yield grid, (group == number).nonzero().flatten()


def _sample_positions(
    axis: int, bins: int, starts: Tensor, sides: Tensor, inner: Tensor | float
) -> Tensor:
    """Return positions of samples in pixels of the map, in a shape that fits (N, C, h, w).

    Args:
        axis: 0 for rows, 1 for columns.
        bins: Number of bins along the axis.
        starts: Starts of the RoIs, (N, 2).
        sides: Sides of the RoIs, (N, 2).
        inner: Positions in the bins from 0 to 1.
    """
    numbers = torch.arange(bins, dtype=starts.dtype, device=starts.device)
    numbers = numbers.view((1, 1, -1, 1) if axis == 0 else (1, 1, 1, -1))
    return _column(starts, axis) + (numbers + inner) * _column(sides, axis) / bins


def _column(values: Tensor, axis: int) -> Tensor:
    """Return a column of (N, 2) values as (N, 1, 1, 1)."""
    return values[:, axis].view(-1, 1, 1, 1)


def _planes(rois: Tensor, features: Tensor) -> Tensor:
    """Return the index of each RoI's feature maps among all B * C maps, (N, C)."""
    channels = torch.arange(features.size(1), device=rois.device)
    return rois[:, :1].long() * features.size(1) + channels


def _bin_limits(low: Tensor, high: Tensor, bins: int, size: int) -> list[list[tuple[int, int]]]:
    """Return the first pixel of each bin and the one after its last, for each RoI.

    The bins of a RoI without extent are empty.
    """
    steps = torch.arange(bins + 1, dtype=low.dtype, device=low.device)
    edges = steps * ((high - low) / bins)[:, None] + low[:, None]
    starts = edges[:, :-1].floor().clamp(0, size).long().tolist()
    ends = edges[:, 1:].ceil().clamp(0, size).long()
    ends = torch.where((high > low)[:, None], ends, 0).tolist()
    return [list(zip(*limits, strict=True)) for limits in zip(starts, ends, strict=True)]


OPERATORS = (
    deform_roi_pool_backward,
    deform_roi_pool_forward,
    roi_align_backward,
    roi_align_forward,
    roi_pool_backward,
    roi_pool_forward,
)
