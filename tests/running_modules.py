"""Record which modules of a network are called."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from torch import nn


@contextlib.contextmanager
def record_running_modules() -> Iterator[list[nn.Module]]:
    """Yield a list of the modules that are called within the context, in order."""
    modules: list[nn.Module] = []
    handle = nn.modules.module.register_module_forward_pre_hook(
        lambda module, _: modules.append(module)
    )
    try:
        yield modules
    finally:
        handle.remove()


def count_batch_norms(modules: list[nn.Module]) -> int:
    return sum(isinstance(module, nn.BatchNorm2d) for module in modules)
