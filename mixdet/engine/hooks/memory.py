"""Freed memory stays with the process: on a CPU that saves a good part of a training step."""

from __future__ import annotations

import ctypes
import sys

import torch
from mmdet.registry import HOOKS
from mmengine.hooks import Hook
from mmengine.optim import OptimWrapper, OptimWrapperDict
from mmengine.runner import Runner

# glibc's <malloc.h>
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD = -1, -2, -3
# Bytes from which on tensors are mapped, and given back, after all; an older glibc refuses more
# than the second
THRESHOLDS = 1 << 30, 32 << 20
MAPPED = 128 << 10  # those from which on, until all is kept: glibc's own default
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

    What the first step makes for good, such as the optimizer's momenta, would lie between what it
    frees, as holes that the next tensor does not fit. So until the optimizer's first step, after
    however many batches, tensors are still mapped.
    """

    def __init__(self) -> None:
        self._first = False

    def before_run(self, runner: Runner) -> None:
        """Set the allocator, before anything is computed."""
        if not torch.cuda.is_available():
            keep_freed_memory()

    def before_train(self, runner: Runner) -> None:
        """Have the first step's tensors mapped."""
        if not torch.cuda.is_available():
            self._first = map_tensors()

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: dict | None = None,
        outputs: dict | None = None,
    ) -> None:
        """From the optimizer's first step on, keep what is freed."""
        if self._first and _stepped(runner.optim_wrapper):
            self._first = False
            keep_freed_memory()


def _stepped(wrapper: OptimWrapper) -> bool:
    """Whether the iteration that ends has made the optimizer's step, or all of several ones'."""
    each = wrapper.values() if isinstance(wrapper, OptimWrapperDict) else [wrapper]
    return all(one.should_update() for one in each)


def keep_freed_memory() -> bool:
    """Tell glibc's malloc to keep what is freed; False where there is no glibc."""
    # the others alone would make it worse: with any of them the threshold no longer adapts itself
    kept = any(_mallopt(M_MMAP_THRESHOLD, threshold) for threshold in THRESHOLDS)
    return kept and all(_mallopt(name, value) for name, value in SETTINGS)


def map_tensors() -> bool:
    """Tell it to map what has `MAPPED` bytes or more; False where freed memory cannot be kept."""
    return keep_freed_memory() and _mallopt(M_MMAP_THRESHOLD, MAPPED)


def _mallopt(name: int, value: int) -> bool:
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has none
    return mallopt is not None and bool(mallopt(name, value))
