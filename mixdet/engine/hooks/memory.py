"""Freed memory stays with the process: on a CPU that saves a good part of a training step."""

from __future__ import annotations

import ctypes
import sys

import torch
from mmdet.registry import HOOKS
from mmengine.hooks import Hook
from mmengine.runner import Runner

# glibc's <malloc.h>
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD = -1, -2, -3
MEBIBYTE = 1 << 20
ALL = 1024  # MiB, more than any tensor


@HOOKS.register_module()
class KeepMemoryHook(Hook):
    """When training on a CPU under glibc, keep freed memory for the next tensor.

    By default glibc maps every large tensor anew and unmaps it when it is freed, so that each step
    has the kernel clear the same pages again. PyTorch's tuning guide recommends another allocator
    against it; these three settings of glibc's own do the same without one. They hold for the
    process. In training, tensors of 16 MiB and more are still mapped: they are few, and the holes
    they leave would raise the peak by a tenth (docs/performance.md).
    """

    def before_run(self, runner: Runner) -> None:
        """Set the allocator, before the first step."""
        if not torch.cuda.is_available():
            keep_freed_memory()

    def before_test(self, runner: Runner) -> None:
        """Keep all: without a backward pass few tensors are alive at a time, so holes are small."""
        if not torch.cuda.is_available():
            keep_freed_memory(ALL)


def keep_freed_memory(largest: int = 16) -> bool:
    """Tell glibc's malloc to keep what is freed.

    Args:
        largest: Tensors of so many MiB, and larger ones, are given back.

    Returns:
        False where there is no glibc.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:  # musl has none
        return False
    settings = (
        (M_MMAP_THRESHOLD, largest * MEBIBYTE),
        (M_TRIM_THRESHOLD, ALL * MEBIBYTE),
        (M_TOP_PAD, 64 * MEBIBYTE),
    )
    done = [mallopt(ctypes.c_int(name), ctypes.c_int(value)) for name, value in settings]
    return all(done)
