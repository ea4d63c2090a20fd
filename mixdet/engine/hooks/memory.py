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
# Bytes from which on tensors are mapped, and given back, after all; an older glibc refuses more
# than the second
THRESHOLDS = 1 << 30, 32 << 20
SETTINGS = (
    (M_TRIM_THRESHOLD, -1),  # never
    (M_TOP_PAD, 64 << 20),
)


@HOOKS.register_module()
class KeepMemoryHook(Hook):
    """Under glibc, where a CPU computes, keep freed memory for the next tensor.

    By default glibc maps every large tensor anew and unmaps it when it is freed, so that each step
    has the kernel clear the same pages again. PyTorch's tuning guide recommends another allocator
    against it; these three settings of glibc's own do the same without one. They hold for the
    process, whose memory then stays at its peak: `default_hooks.keep_memory=None` turns it off.
    """

    def before_run(self, runner: Runner) -> None:
        """Set the allocator, before the first step."""
        if not torch.cuda.is_available():
            keep_freed_memory()


def keep_freed_memory() -> bool:
    """Tell glibc's malloc to keep what is freed; False where there is no glibc."""
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:  # musl has none
        return False
    # the others alone would make it worse: with any of them the threshold no longer adapts itself
    kept = any(mallopt(M_MMAP_THRESHOLD, threshold) for threshold in THRESHOLDS)
    return kept and all(mallopt(name, value) for name, value in SETTINGS)
