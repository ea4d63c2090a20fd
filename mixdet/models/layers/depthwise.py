"""Depthwise convolution whose gradients are computed in ways that are fast with oneDNN.

In two cases oneDNN has no fast routine, and uses its code for dense convolutions, which takes
several times as long. The first case is the gradient of a weight with more than three columns. This
module computes it in strips of three columns. The second case is the gradient of the input in
bfloat16 with a stride above 1. This module computes it in float32.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import FunctionCtx

from mixdet.models.layers.fast_path import eager_on_cpu, onednn_computes
from mixdet.models.torch_private import (
    depthwise_backward,
    forward_ad_active,
    functorch_active,
    is_batched_gradient,
)

STRIP = 3  # columns


def depthwise_conv(x: Tensor, weight: Tensor, stride: int, padding: int, channels: int) -> Tensor:
    """Convolve every channel with its own kernel, as `F.conv2d` does, with faster gradients.

    Args:
        x: (N, C, H, W).
        weight: (C, 1, K, K).
        stride: Stride in pixels.
        padding: Pixels of zeros on each side.
        channels: C. It is an argument because a tracer cannot read it from the tensors.

    Returns:
        (N, C, H', W').
    """
    if _needs_gradient(x, weight):
        dtype = x.dtype
        if torch.is_autocast_enabled("cpu") and torch.float64 not in (dtype, weight.dtype):
            dtype = torch.get_autocast_dtype("cpu")
            x, weight = x.to(dtype), weight.to(dtype)
        faster = weight.shape[-1] > STRIP or (dtype == torch.bfloat16 and stride > 1)
        if faster and weight.dtype == dtype and onednn_computes(dtype):
            return _Depthwise.apply(x, weight, stride, padding)
    return F.conv2d(x, weight, None, stride, padding, 1, channels)


def _needs_gradient(x: Tensor, weight: Tensor) -> bool:
    """Tell whether `x` is on a CPU in channels_last and an ordinary backward pass may follow."""
    return (
        eager_on_cpu(x)
        and torch.is_grad_enabled()
        and (x.requires_grad or weight.requires_grad)
        and x.dim() == 4
        and x.numel() > 0
        and x.stride(1) == 1  # channels_last, or a slice of its channels
        and not (forward_ad_active() or functorch_active())  # `_Depthwise` supports neither
    )


class _Depthwise(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, weight: Tensor, stride: int, padding: int) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.geometry = stride, padding
        return F.conv2d(x, weight, None, stride, padding, 1, len(weight))

    @staticmethod
    def backward(ctx: FunctionCtx, grad: Tensor) -> tuple[Any, ...]:
        x, weight = ctx.saved_tensors
        needs_x, needs_weight = ctx.needs_input_grad[:2]
        # Only torch's own function supports a second derivative, or a batch of gradients.
        if torch.is_grad_enabled() or is_batched_gradient(grad):
            grads = depthwise_backward(grad, x, weight, *ctx.geometry, (needs_x, needs_weight))
        else:
            grads = (
                _input_gradient(grad, x, weight, *ctx.geometry) if needs_x else None,
                _weight_gradient(grad, x, weight, *ctx.geometry) if needs_weight else None,
            )
        return *grads, None, None


def _input_gradient(grad: Tensor, x: Tensor, weight: Tensor, stride: int, padding: int) -> Tensor:
    """Return the gradient of the input (N, C, H, W)."""
    dtype = torch.float32 if stride > 1 else x.dtype
    # torch needs only the shape of x. If x is a slice of channels, torch would copy it.
    like_x = torch.empty(x.shape, dtype=dtype, memory_format=torch.channels_last)
    grad, weight = grad.to(dtype), weight.to(dtype)
    return depthwise_backward(grad, like_x, weight, stride, padding, (True, False))[0].to(x.dtype)


def _weight_gradient(grad: Tensor, x: Tensor, weight: Tensor, stride: int, padding: int) -> Tensor:
    """Return the gradient of the weight (C, 1, K, K), computed in strips of three columns.

    A strip is the gradient of a K x 3 kernel on the input shifted to the left. The input is copied
    once, together with its padding. A shifted input is a view of this copy that begins a few pixels
    later. At the end of a row, the view reads pixels of the next row. The gradient of the output is
    padded with zeros there, so these pixels do not count.
    """
    batch, channels, height, width = x.shape
    size = weight.shape[-1]
    if size <= STRIP:
        return depthwise_backward(grad, x, weight, stride, padding, (False, True))[1]
    # the rows and columns of the padded input that the kernel reads
    rows, columns = (stride * (cells - 1) + size for cells in grad.shape[-2:])
    length = batch * rows * columns * channels
    memory = x.new_zeros(length + (size - STRIP) * channels)
    padded = memory[:length].view(batch, rows, columns, channels).permute(0, 3, 1, 2)
    bottom, right = min(height, rows - padding), min(width, columns - padding)
    inside = padded[:, :, padding : padding + bottom, padding : padding + right]
    inside.copy_(x[:, :, :bottom, :right])
    grad = F.pad(grad, (0, (size - STRIP) // stride))
    strips, done = [], 0
    for first in sorted({*range(0, size - STRIP + 1, STRIP), size - STRIP}):
        shifted = memory.as_strided(padded.shape, padded.stride(), first * channels)
        kernels = weight[..., first : first + STRIP]
        strip = depthwise_backward(grad, shifted, kernels, stride, 0, (False, True))[1]
        strips.append(strip[..., done - first :])  # the last strip may overlap the one before
        done = first + STRIP
    return torch.cat(strips, -1)
