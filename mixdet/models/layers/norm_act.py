"""Batch norm and activation as one step of training, which keeps one tensor for backward, not two.

What the plain path keeps of `act(norm(x))` is `x` and a copy of the normalized tensor. It follows
from `x` and the batch's mean and deviation in one pass, as in InPlace-ABN (arXiv 1712.02616), so
that only `x` need be kept. A ReLU needs no more than its output, which the next layer keeps anyway.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx

from mixdet.models.layers.shortcut import eager_on_cpu, hooked

aten = torch.ops.aten
# An x of so many bytes takes its gradient in place of the activation's: large tensors make the peak
LARGE = 16 * 2**20
PART = 2**20  # bytes that are written at a time


def norm_act(norm: nn.Module, act: nn.Module, x: Tensor) -> Tensor:
    """Compute `act(norm(x))`; statistics, results and gradients are those of the two modules.

    They are called as they are wherever the one step is not for them: in evaluation, on another
    device than a CPU, under `torch.compile`, which fuses by itself, when traced, when the norm is
    not an `nn.BatchNorm2d` with all its parts or the activation not a SiLU, ReLU or ReLU6, and
    where someone hooked on to them. The one step knows backward differentiation, once and twice;
    forward mode and `torch.func` refuse it.

    Args:
        norm: Normalization.
        act: Activation.
        x: (N, C, H, W).

    Returns:
        (N, C, H, W).
    """
    fits = (
        type(norm) is nn.BatchNorm2d
        and norm.training
        and norm.affine
        and norm.track_running_stats
        and norm.momentum is not None
        and type(act) in (nn.SiLU, nn.ReLU, nn.ReLU6)
        and eager_on_cpu(x)
        and x.dim() == 4
        and x.numel() > x.shape[1]  # of one value a channel batch norm has its own to say
        and not (hooked(norm) or hooked(act))
    )
    return _NormAct.apply(x, norm.weight, norm.bias, norm, act) if fits else act(norm(x))


class _NormAct(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: FunctionCtx, x: Tensor, weight: Tensor, bias: Tensor, norm: nn.Module, act: nn.Module
    ) -> Tensor:
        norm.num_batches_tracked.add_(1)
        running = norm.running_mean, norm.running_var
        y, mean, invstd = torch.native_batch_norm(
            x, weight, bias, *running, True, norm.momentum, norm.eps
        )
        y = {nn.SiLU: F.silu, nn.ReLU: F.relu, nn.ReLU6: F.relu6}[type(act)](y, inplace=True)
        ctx.eps, ctx.act = norm.eps, type(act)
        ctx.save_for_backward(x, weight, bias, mean, invstd, None if ctx.act is nn.SiLU else y)
        return y

    @staticmethod
    def backward(ctx: FunctionCtx, grad: Tensor) -> tuple[Any, ...]:
        x, weight, bias, mean, invstd, y = ctx.saved_tensors
        if torch.is_grad_enabled():  # to be differentiated once more
            y = ctx.act()(F.batch_norm(x, None, None, weight, bias, True, eps=ctx.eps))
            needed = [tensor for tensor in (x, weight, bias) if tensor.requires_grad]
            found = iter(torch.autograd.grad(y, needed, grad, create_graph=True))
            grads = [next(found) if need else None for need in ctx.needs_input_grad[:3]]
            return *grads, None, None
        if ctx.act is nn.SiLU:
            z = torch.native_batch_norm(x, weight, bias, mean, invstd.pow(-2), False, 0.0, 0.0)[0]
            grad = aten.silu_backward.grad_input(grad, z, grad_input=z)
        elif ctx.act is nn.ReLU:
            grad = aten.threshold_backward(grad, y, 0)
        else:
            grad = aten.hardtanh_backward(grad, y, 0, 6)
        saved = x, weight, None, None, mean, invstd, True, ctx.eps
        if _in_place(x, weight, grad) and ctx.needs_input_grad[0]:
            sums = aten.native_batch_norm_backward(grad, *saved, [False, True, True])[1:]
            grads = _input_gradient(grad, x, weight, mean, invstd, *sums), *sums
        else:
            grads = aten.native_batch_norm_backward(grad, *saved, ctx.needs_input_grad[:3])
        return *grads, None, None


def _in_place(x: Tensor, weight: Tensor, grad: Tensor) -> bool:
    """Whether the gradient is to be written over what it is computed from."""
    return (
        x.nbytes >= LARGE
        and x.dtype == weight.dtype
        and x.dtype in (torch.float32, torch.float64)  # torch sums halves in float32
        and not torch._C._functorch.is_legacy_batchedtensor(grad)  # of several outputs at a time
        and all(each.is_contiguous(memory_format=torch.channels_last) for each in (x, grad))
    )


def _input_gradient(
    grad: Tensor,
    x: Tensor,
    weight: Tensor,
    mean: Tensor,
    invstd: Tensor,
    of_weight: Tensor,
    of_bias: Tensor,
) -> Tensor:
    """Batch norm's gradient of x, written over `grad`, a part at a time that stays in the cache."""
    values = x.numel() // len(mean)
    factor = weight * invstd
    of_x = -factor * invstd * of_weight / values
    constant = -factor * of_bias / values
    rows = PART // (len(mean) * x.element_size()) + 1
    parts = (each.permute(0, 2, 3, 1).view(-1, len(mean)).split(rows) for each in (grad, x))
    for grads, inputs in zip(*parts, strict=True):
        torch.addcmul(constant, grads, factor, out=grads)
        grads.addcmul_(inputs - mean, of_x)
    return grad
