"""Keep freed memory in the process, which makes training steps on a CPU faster."""

from __future__ import annotations

import ctypes
import sys

import torch
from mmdet.registry import HOOKS
from mmengine.hooks import Hook
from mmengine.optim import OptimWrapper, OptimWrapperDict
from mmengine.runner import Runner

# Parameters of mallopt, from glibc's <malloc.h>.
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD = -1, -2, -3
# glibc makes a separate memory mapping for each allocation above this size, and removes the mapping
# when the memory is freed. The values are tried in order, since older versions of glibc accept only
# the second one.
MMAP_THRESHOLDS = (1 << 30, 32 << 20)
DEFAULT_MMAP_THRESHOLD = 128 << 10  # glibc's default
HEAP_SETTINGS = (
    (M_TRIM_THRESHOLD, -1),  # never return the end of the heap to the system
    (M_TOP_PAD, 64 << 20),  # grow the heap by this much at a time
)


@HOOKS.register_module()
class KeepMemoryHook(Hook):
    """Keep freed memory for the next tensor, on a CPU with glibc.

    By default glibc maps new memory for every large tensor and unmaps it when the tensor is freed.
    The kernel then has to clear the same pages in every step. PyTorch's tuning guide recommends
    another allocator. This hook instead sets three parameters of glibc's allocator, for the whole
    process. The memory use of the process then stays at its peak. `default_hooks.keep_memory=None`
    turns the hook off.

    In training, glibc still maps large tensors until the optimizer has made its first step. That
    step creates tensors that stay allocated, such as the optimizer's momenta. In the heap, these
    tensors would lie between freed ones, and the freed gaps would be too small for the tensors of
    the next iteration.
    """

    def __init__(self) -> None:
        self._before_first_step = False

    def before_run(self, runner: Runner) -> None:
        """Set the allocator before anything is computed."""
        if not torch.cuda.is_available():
            keep_freed_memory()

    def before_train(self, runner: Runner) -> None:
        """Let glibc map large tensors until the optimizer's first step."""
        if not torch.cuda.is_available():
            self._before_first_step = map_large_tensors()

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: dict | None = None,
        outputs: dict | None = None,
    ) -> None:
        """Keep freed memory from the optimizer's first step on."""
        if self._before_first_step and _has_stepped(runner.optim_wrapper):
            self._before_first_step = False
            keep_freed_memory()


def _has_stepped(wrapper: OptimWrapper) -> bool:
    """Return whether every optimizer has made a step in the iteration that just ended."""
    wrappers = wrapper.values() if isinstance(wrapper, OptimWrapperDict) else [wrapper]
    return all(wrapper.should_update() for wrapper in wrappers)


def keep_freed_memory() -> bool:
    """Set glibc's malloc to keep freed memory. Return False if the system has no glibc."""
    # Once any parameter is set, glibc no longer adapts the mmap threshold, so raise it here.
    raised = any(_mallopt(M_MMAP_THRESHOLD, threshold) for threshold in MMAP_THRESHOLDS)
    return raised and all(_mallopt(parameter, value) for parameter, value in HEAP_SETTINGS)


def map_large_tensors() -> bool:
    """Set glibc's malloc to map large tensors again. Return False if the system has no glibc."""
    return keep_freed_memory() and _mallopt(M_MMAP_THRESHOLD, DEFAULT_MMAP_THRESHOLD)


def _mallopt(parameter: int, value: int) -> bool:
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has no mallopt
    return mallopt is not None and bool(mallopt(parameter, value))
