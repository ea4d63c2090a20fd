"""Batch norm and activation as one autograd function that stores one tensor fewer in training.

For the backward pass of `act(norm(x))`, two separate modules store `x` and the normalized tensor.
For SiLU, the function in this file stores only `x`. Its backward pass computes the normalized
tensor again, similar to InPlace-ABN (arXiv 1712.02616). For ReLU and ReLU6, the function also
stores its output, and need not compute the normalized tensor again. The stored output costs no
memory, because the next layer stores it anyway. If no layer follows, the function stores a copy.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx

from mixdet.models.layers.fast_path import eager_on_cpu
from mixdet.models.torch_private import (
    batch_norm_backward,
    hooked,
    is_batched_gradient,
    relu6_backward,
    relu_backward,
    silu_backward_,
)

# If x has at least this many bytes, the backward pass writes the gradient of x into the buffer that
# holds the gradient of the batch norm's output. Only large tensors matter for peak memory.
LARGE = 16 * 2**20
PART = 2**20  # bytes that are written at a time


def apply_norm_act(norm: nn.Module, act: nn.Module, x: Tensor, last: bool = False) -> Tensor:
    """Compute `act(norm(x))`, with the statistics, results and gradients of the two modules.

    In training on a CPU, one autograd function computes both modules. The norm must be an
    `nn.BatchNorm2d` with weights, running statistics and a momentum. The activation must be a SiLU,
    ReLU or ReLU6. Neither module may have hooks. Otherwise the two modules are called one by one,
    for example in evaluation, on other devices, in traces and under `torch.compile`. The gradients
    of the function can be differentiated once more. The function raises an error in forward-mode
    differentiation and in `torch.func`.

    Args:
        norm: Normalization.
        act: Activation.
        x: (N, C, H, W).
        last: The result is an output of the network. A caller may change it in place, so a copy is
            stored for the backward pass.

    Returns:
        (N, C, H, W).
    """
    one_step = (
        type(norm) is nn.BatchNorm2d
        and norm.training
        and norm.affine
        and norm.track_running_stats
        and norm.momentum is not None
        and type(act) in (nn.SiLU, nn.ReLU, nn.ReLU6)
        and eager_on_cpu(x)
        and x.dim() == 4
        # With one value per channel, nn.BatchNorm2d is called, and raises its own error
        and x.numel() > x.shape[1]
        and not (hooked(norm) or hooked(act))
    )
    if one_step:
        return _NormAct.apply(x, norm.weight, norm.bias, norm, act, last)
    return act(norm(x))


class _NormAct(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: FunctionCtx,
        x: Tensor,
        weight: Tensor,
        bias: Tensor,
        norm: nn.Module,
        act: nn.Module,
        last: bool,
    ) -> Tensor:
        norm.num_batches_tracked.add_(1)
        running = norm.running_mean, norm.running_var
        y, mean, invstd = torch.native_batch_norm(
            x, weight, bias, *running, True, norm.momentum, norm.eps
        )
        y = {nn.SiLU: F.silu, nn.ReLU: F.relu, nn.ReLU6: F.relu6}[type(act)](y, inplace=True)
        ctx.eps, ctx.act = norm.eps, type(act)
        output = None if ctx.act is nn.SiLU else y.clone() if last else y
        ctx.save_for_backward(x, weight, bias, mean, invstd, output)
        return y

    @staticmethod
    def backward(ctx: FunctionCtx, grad: Tensor) -> tuple[Any, ...]:
        x, weight, bias, mean, invstd, y = ctx.saved_tensors
        if torch.is_grad_enabled():  # the gradients will be differentiated again
            y = ctx.act()(F.batch_norm(x, None, None, weight, bias, True, eps=ctx.eps))
            inputs = [tensor for tensor in (x, weight, bias) if tensor.requires_grad]
            gradients = iter(torch.autograd.grad(y, inputs, grad, create_graph=True))
            grads = [next(gradients) if need else None for need in ctx.needs_input_grad[:3]]
            return *grads, None, None, None
        if ctx.act is nn.SiLU:
            z = torch.native_batch_norm(x, weight, bias, mean, invstd.pow(-2), False, 0.0, 0.0)[0]
            grad = silu_backward_(grad, z)
        else:
            grad = (relu_backward if ctx.act is nn.ReLU else relu6_backward)(grad, y)
        saved = x, weight, mean, invstd, ctx.eps
        if _in_place(x, weight, grad) and ctx.needs_input_grad[0]:
            sums = batch_norm_backward(grad, *saved, (False, True, True))[1:]
            grads = _input_gradient(grad, x, weight, mean, invstd, *sums), *sums
        else:
            grads = batch_norm_backward(grad, *saved, ctx.needs_input_grad[:3])
        return *grads, None, None, None


def _in_place(x: Tensor, weight: Tensor, grad: Tensor) -> bool:
    """Tell whether to write the gradient of x over the gradient of the batch norm's output."""
    return (
        x.nbytes >= LARGE
        and x.dtype == weight.dtype
        and x.dtype in (torch.float32, torch.float64)  # for float16, torch sums in float32
        and not is_batched_gradient(grad)
        and x.is_contiguous(memory_format=torch.channels_last)
        and grad.is_contiguous(memory_format=torch.channels_last)
    )


def _input_gradient(
    grad: Tensor,
    x: Tensor,
    weight: Tensor,
    mean: Tensor,
    invstd: Tensor,
    weight_grad: Tensor,
    bias_grad: Tensor,
) -> Tensor:
    """Write batch norm's gradient of x over `grad`, in parts that fit the cache."""
    values = x.numel() // len(mean)
    factor = weight * invstd
    slope = -factor * invstd * weight_grad / values
    constant = -factor * bias_grad / values
    rows = PART // (len(mean) * x.element_size()) + 1
    parts = (t.permute(0, 2, 3, 1).view(-1, len(mean)).split(rows) for t in (grad, x))
    for grads, inputs in zip(*parts, strict=True):
        torch.addcmul(constant, grads, factor, out=grads)
        grads.addcmul_(inputs - mean, slope)
    return grad
