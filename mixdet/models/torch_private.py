"""Functions that use private names of torch.

If torch changes a private name, only this file has to change.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn.modules import module as module_hooks
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils import _pytree
from torch.utils._python_dispatch import _get_current_dispatch_mode

AnyBatchNorm = _BatchNorm  # the base class of BatchNorm1d to 3d and of SyncBatchNorm
HOOK_KINDS = ("forward_hooks", "forward_pre_hooks", "backward_hooks", "backward_pre_hooks")


def dispatch_mode_active() -> bool:
    """Tell whether a `TorchDispatchMode` intercepts every operation, as inside `make_fx`."""
    return _get_current_dispatch_mode() is not None


def forward_ad_active() -> bool:
    """Tell whether the code runs inside `torch.autograd.forward_ad.dual_level`."""
    return forward_ad._current_level >= 0


def functorch_active() -> bool:
    """Tell whether the code runs inside a transform of `torch.func`, such as `grad` or `vmap`."""
    return torch._C._are_functorch_transforms_active()


def is_vmapped(x: Tensor) -> bool:
    """Tell whether `torch.func.vmap` made `x`. The memory format of such a tensor is unknown."""
    return torch._C._functorch.is_batchedtensor(x)


def is_batched_gradient(grad: Tensor) -> bool:
    """Tell whether `torch.autograd.grad(..., is_grads_batched=True)` made the gradient."""
    return torch._C._functorch.is_legacy_batchedtensor(grad)


def hooked(module: nn.Module) -> bool:
    """Tell whether hooks on this module, or hooks on all modules, observe its calls."""
    return any(
        getattr(module, f"_{kind}") or getattr(module_hooks, f"_global_{kind}")
        for kind in HOOK_KINDS
    )


def onednn_enabled() -> bool:
    """Tell whether oneDNN is switched on, see `torch.backends.mkldnn.flags`."""
    return torch._C._get_mkldnn_enabled()


def onednn_has_bfloat16() -> bool:
    """Tell whether oneDNN computes in bfloat16 on this CPU."""
    return torch.ops.mkldnn._is_mkldnn_bf16_supported()


def cpu_has_avx512_bfloat16() -> bool:
    """Tell whether this x86 CPU has AVX-512 bfloat16.

    Only a torch without `torch.cpu.get_capabilities` needs this function.
    """
    return torch.cpu._is_avx512_bf16_supported()


def depthwise_backward(
    grad: Tensor, x: Tensor, weight: Tensor, stride: int, padding: int, wanted: tuple[bool, bool]
) -> tuple[Tensor | None, Tensor | None]:
    """Compute the gradients of a depthwise `F.conv2d` without bias.

    Args:
        grad: The gradient of the output, (N, C, H', W').
        x: The input, (N, C, H, W).
        weight: The kernels, (C, 1, K, K).
        stride: Stride of the convolution, in pixels.
        padding: Pixels of zeros on each side.
        wanted: Whether to compute the gradients of `x` and of `weight`.

    Returns:
        The gradients of `x` and `weight`, with None for a gradient that is not wanted.
    """
    geometry = ([stride] * 2, [padding] * 2, [1, 1], False, [0, 0], len(weight))
    mask = [*wanted, False]
    return torch.ops.aten.convolution_backward(grad, x, weight, None, *geometry, mask)[:2]


def silu_backward_(grad: Tensor, x: Tensor) -> Tensor:
    """Return the gradient of `F.silu` at `x`. The result overwrites `x` in memory."""
    return torch.ops.aten.silu_backward.grad_input(grad, x, grad_input=x)


def relu_backward(grad: Tensor, y: Tensor) -> Tensor:
    """Return the gradient of `F.relu`, computed from its output `y`."""
    return torch.ops.aten.threshold_backward(grad, y, 0)


def relu6_backward(grad: Tensor, y: Tensor) -> Tensor:
    """Return the gradient of `F.relu6`, computed from its output `y`."""
    return torch.ops.aten.hardtanh_backward(grad, y, 0, 6)


def batch_norm_backward(
    grad: Tensor,
    x: Tensor,
    weight: Tensor,
    mean: Tensor,
    invstd: Tensor,
    eps: float,
    wanted: tuple[bool, bool, bool],
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Compute the gradients of batch norm in training mode.

    Args:
        grad: The gradient of the output, (N, C, H, W).
        x: The input, (N, C, H, W).
        weight: The factor of each channel, (C,).
        mean: The mean of the batch, (C,).
        invstd: 1 / sqrt(variance + eps) of the batch, (C,).
        eps: The eps of the norm.
        wanted: Whether to compute the gradients of `x`, `weight` and the bias.

    Returns:
        The gradients of `x`, `weight` and the bias, with None for a gradient that is not wanted.
    """
    return torch.ops.aten.native_batch_norm_backward(
        grad, x, weight, None, None, mean, invstd, True, eps, list(wanted)
    )


def tree_leaves(outputs: object) -> list:
    """Return the leaves of nested lists, tuples and dicts, such as a model's output tensors."""
    return _pytree.tree_leaves(outputs)
