"""Whether someone listens to a module, so that it has to be called."""

from __future__ import annotations

from torch import nn
from torch.nn.modules.module import _has_any_global_hook


def hooked(module: nn.Module) -> bool:
    """Whether hooks of the module's own, or hooks on all modules, see its calls."""
    return bool(
        _has_any_global_hook()
        or module._forward_hooks
        or module._forward_pre_hooks
        or module._backward_hooks
        or module._backward_pre_hooks
    )
