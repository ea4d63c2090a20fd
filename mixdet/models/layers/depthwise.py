"""Depthwise convolution whose gradients oneDNN computes in the ways that it is fast at.

Its kernel for the gradient of the weight takes kernels of any height, but no wider than three
columns, and its kernel for the gradient of the input takes no strides in bfloat16. What they do not
take is left to code for whole convolutions, which needs several times as long. So weights wider
than three columns are computed in strips, and strides in float32.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import forward_ad
from torch.autograd.function import FunctionCtx

from mixdet.models.layers.shortcut import eager_on_cpu, onednn_computes

STRIP = 3  # columns


def depthwise_conv(x: Tensor, weight: Tensor, stride: int, padding: int, channels: int) -> Tensor:
    """Convolve every channel with its own kernel; `F.conv2d`, the gradients apart.

    Args:
        x: (N, C, H, W).
        weight: (C, 1, K, K).
        stride: In pixels.
        padding: Pixels of zeros on each side.
        channels: C, which a tracer cannot read.

    Returns:
        (N, C, H', W').
    """
    if _to_learn(x, weight):
        dtype = x.dtype
        if torch.is_autocast_enabled("cpu") and torch.float64 not in (dtype, weight.dtype):
            dtype = torch.get_autocast_dtype("cpu")
            x, weight = x.to(dtype), weight.to(dtype)
        faster = weight.shape[-1] > STRIP or (dtype == torch.bfloat16 and stride > 1)
        if faster and weight.dtype == dtype and onednn_computes(dtype):
            return _Depthwise.apply(x, weight, stride, padding)
    return F.conv2d(x, weight, None, stride, padding, 1, channels)


def _to_learn(x: Tensor, weight: Tensor) -> bool:
    """Whether a backward pass may follow, in channels_last on a CPU, and of the usual kind."""
    return (
        eager_on_cpu(x)
        and torch.is_grad_enabled()
        and (x.requires_grad or weight.requires_grad)
        and x.dim() == 4
        and x.numel() > 0
        and x.stride(1) == 1  # also a slice of the channels
        # neither forward mode nor torch.func knows the function
        and forward_ad._current_level < 0
        and not torch._C._are_functorch_transforms_active()
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
        of_x, of_weight = ctx.needs_input_grad[:2]
        # to be differentiated once more, or for several outputs at a time
        if torch.is_grad_enabled() or torch._C._functorch.is_legacy_batchedtensor(grad):
            grads = _gradients(grad, x, weight, *ctx.geometry, of_x, of_weight)
        else:
            grads = (
                _input_gradient(grad, x, weight, *ctx.geometry) if of_x else None,
                _weight_gradient(grad, x, weight, *ctx.geometry) if of_weight else None,
            )
        return *grads, None, None


def _gradients(
    grad: Tensor, x: Tensor, weight: Tensor, stride: int, padding: int, of_x: bool, of_weight: bool
) -> tuple[Tensor | None, Tensor | None]:
    """torch's gradients of x and weight, those that are asked for."""
    geometry = ([stride] * 2, [padding] * 2, [1, 1], False, [0, 0], len(weight))
    sides = [of_x, of_weight, False]
    return torch.ops.aten.convolution_backward(grad, x, weight, None, *geometry, sides)[:2]


def _input_gradient(grad: Tensor, x: Tensor, weight: Tensor, stride: int, padding: int) -> Tensor:
    dtype = torch.float32 if stride > 1 else x.dtype
    # torch asks for the shape alone, but would copy a slice of channels for it
    shape = torch.empty(x.shape, dtype=dtype, memory_format=torch.channels_last)
    grad, weight = grad.to(dtype), weight.to(dtype)
    return _gradients(grad, shape, weight, stride, padding, True, False)[0].to(x.dtype)


def _weight_gradient(grad: Tensor, x: Tensor, weight: Tensor, stride: int, padding: int) -> Tensor:
    """The gradient of weight (C, 1, K, K), strip by strip.

    A strip is the gradient of a K x 3 kernel on the input moved to the left. In a copy with its
    padding written out, the moved input is the same memory from a few pixels on: what a row then
    reads of the next one meets gradients of 0, which fill the rows of `grad`.
    """
    batch, channels, height, width = x.shape
    size = weight.shape[-1]
    if size <= STRIP:
        return _gradients(grad, x, weight, stride, padding, False, True)[1]
    rows, columns = (stride * (cells - 1) + size for cells in grad.shape[-2:])  # that are read
    length = batch * rows * columns * channels
    memory = x.new_zeros(length + (size - STRIP) * channels)
    padded = memory[:length].view(batch, rows, columns, channels).permute(0, 3, 1, 2)
    bottom, right = min(height, rows - padding), min(width, columns - padding)
    inside = padded[:, :, padding : padding + bottom, padding : padding + right]
    inside.copy_(x[:, :, :bottom, :right])
    grad = F.pad(grad, (0, (size - STRIP) // stride))
    strips, done = [], 0
    for first in sorted({*range(0, size - STRIP + 1, STRIP), size - STRIP}):
        moved = memory.as_strided(padded.shape, padded.stride(), first * channels)
        kernels = weight[..., first : first + STRIP]
        strip = _gradients(grad, moved, kernels, stride, 0, False, True)[1]
        strips.append(strip[..., done - first :])  # the last one overlaps the one before
        done = first + STRIP
    return torch.cat(strips, -1)
