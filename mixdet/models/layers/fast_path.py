"""Conditions under which a layer may use a faster computation than PyTorch's modules."""

from __future__ import annotations

import torch
from torch import Tensor

from mixdet.models.torch_private import (
    dispatch_mode_active,
    onednn_enabled,
    onednn_has_bfloat16,
)


def eager_on_cpu(x: object) -> bool:
    """Tell whether `x` is a tensor on a CPU, and nothing traces, compiles or exports the code."""
    return (
        isinstance(x, Tensor)  # torch.fx traces with proxies instead
        and x.device.type == "cpu"
        and not (torch.compiler.is_compiling() or torch.jit.is_tracing())
        and not dispatch_mode_active()
    )


def onednn_computes(dtype: torch.dtype) -> bool:
    """Tell whether oneDNN convolves this type: float32, or bfloat16 if the CPU supports it."""
    return (
        dtype in (torch.float32, torch.bfloat16)
        and torch.backends.mkldnn.is_available()
        and onednn_enabled()
        and (dtype == torch.float32 or onednn_has_bfloat16())
    )
