"""When a layer may compute another way than by calling its modules one after the other."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.modules import module as of_all
from torch.utils._python_dispatch import _get_current_dispatch_mode


def eager_on_cpu(x: object) -> bool:
    """Whether an input is a tensor on a CPU, computed now: not traced, compiled or exported."""
    return (
        isinstance(x, Tensor)  # not what torch.fx traces with
        and x.device.type == "cpu"
        and not (torch.compiler.is_compiling() or torch.jit.is_tracing())
        and _get_current_dispatch_mode() is None  # nor by make_fx, nor counted
    )


def hooked(module: nn.Module) -> bool:
    """Whether hooks of the module's own, or hooks on all modules, see its calls."""
    kinds = ("forward_hooks", "forward_pre_hooks", "backward_hooks", "backward_pre_hooks")
    return any(getattr(module, f"_{kind}") or getattr(of_all, f"_global_{kind}") for kind in kinds)


def onednn_computes(dtype: torch.dtype) -> bool:
    """Whether oneDNN computes convolutions on this CPU: float32, and bfloat16 in hardware."""
    return (
        dtype in (torch.float32, torch.bfloat16)
        and torch.backends.mkldnn.is_available()
        and torch._C._get_mkldnn_enabled()
        and (dtype == torch.float32 or torch.ops.mkldnn._is_mkldnn_bf16_supported())
    )
