"""Memory that a data loading worker lends to the training process, batch after batch.

torch asks the kernel for new shared memory for every tensor that a worker sends, and the kernel
clears each of its pages first: for eight images of 320 x 320 that took longer than to read and
augment them. A block of this memory returns to its worker when the last tensor in it is gone, and
to the system when the worker ends.
"""

from __future__ import annotations

import math
import multiprocessing
import os
import weakref
from collections.abc import Callable
from multiprocessing.util import Finalize

import numpy as np
import torch
from torch import Tensor

KEPT = 8  # blocks a worker keeps: those ahead (`prefetch_factor`), in use and being pinned
FREE, LENT, ABANDONED = range(3)  # the byte behind a block's content

# a worker's blocks, by number
_own: dict[int, Tensor] = {}
# the training process's, by worker and number, and what gives back those that are lent to it
_mapped: dict[int, dict[int, Tensor]] = {}
_lent: list[weakref.finalize] = []


class SharedTensor:
    """A tensor that is pickled once, into the training process, as a place in shared memory.

    Of a worker's blocks `KEPT` are used again; what it sends beside them is freed as torch's are.

    Args:
        shape: Of the tensor, contiguous and uninitialized.
        dtype: Its type.

    Attributes:
        tensor: To be filled before it is pickled.
    """

    def __init__(self, shape: tuple[int, ...], dtype: torch.dtype) -> None:
        size = _bytes(shape, dtype)
        self.number, self.block = _free_block(size)
        self.tensor = self.block[:size].view(dtype).view(shape)

    def __reduce__(self) -> tuple[Callable, tuple]:
        place = tuple(self.tensor.shape), self.tensor.dtype
        return _received, (os.getpid(), self.number, self.block, *place)


def _bytes(shape: tuple[int, ...], dtype: torch.dtype) -> int:
    return math.prod(shape) * dtype.itemsize


def _free_block(size: int) -> tuple[int, Tensor]:
    """A number and a block of at least so many bytes, marked as lent."""
    marks = {number: int(block[-1]) for number, block in _own.items()}
    free = [number for number in range(KEPT) if marks.get(number) != LENT]
    fitting = [each for each in free if marks.get(each) == FREE and len(_own[each]) > size]
    if fitting:
        number = fitting[0]
        block = _own[number]
    else:
        number = free[0] if free else KEPT
        block = torch.empty(size + 1, dtype=torch.uint8).share_memory_()
        if free:
            if not _own:  # else their files would outlive the worker, where torch names them
                Finalize(None, _own.clear, exitpriority=-100)
            _own[number] = block
    block[-1] = LENT
    return number, block


def _received(
    worker: int, number: int, block: Tensor, shape: tuple[int, ...], dtype: torch.dtype
) -> Tensor:
    """The tensor in the training process; the block is free again when its storage is."""
    if number < KEPT:  # remains mapped, which would cost a fault a page each time
        _blocks_of(worker)[number] = block
    content = block.numpy()  # NumPy, since a tensor of inference mode could not be marked after it
    array = content[: _bytes(shape, dtype)]
    tensor = torch.from_numpy(array)  # whose storage, and so each view of it, holds the array
    release = weakref.finalize(array, _mark, content, FREE)
    release.atexit = False
    _lent[:] = [*(each for each in _lent if each.alive), release]
    return tensor.view(dtype).view(shape)


def _mark(content: np.ndarray, mark: int) -> None:
    content[-1] = mark


def _abandon_lent() -> None:
    """Before a fork: what it holds of a batch must neither change nor be given back from there."""
    for release in _lent:
        found = release.detach()
        if found:
            _mark(found[2][0], ABANDONED)
    _lent.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_abandon_lent)


def _blocks_of(worker: int) -> dict[int, Tensor]:
    if worker not in _mapped:
        workers = {child.pid for child in multiprocessing.active_children()}
        for gone in _mapped.keys() - workers:
            _mapped.pop(gone, None)  # another thread may have been here
        _mapped[worker] = {}
    return _mapped[worker]
