"""Shared memory blocks that a data loading worker reuses for many batches.

torch allocates new shared memory for every tensor that a worker sends, and the kernel clears this
memory first. For eight images of 320 x 320 pixels, the allocation took longer than reading and
augmenting them. A worker may reuse a block of this module as soon as the training process freed the
tensor in the block. The system frees the blocks when the worker ends.
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

# A worker keeps up to this many blocks, for batches that are prefetched, being pinned or in use.
MAX_BLOCKS = 8
# The last byte of a block is its state. A worker replaces an ABANDONED block with a new block.
FREE, IN_USE, ABANDONED = range(3)

# In a worker: its blocks, by their numbers.
_worker_blocks: dict[int, Tensor] = {}
# In the training process: the received blocks, by the worker's process id and then by number.
_received_blocks: dict[int, dict[int, Tensor]] = {}
# In the training process: the finalizers that set a block's state to FREE.
_finalizers: list[weakref.finalize] = []


class SharedTensor:
    """A tensor in a shared memory block, which a worker fills and then pickles once.

    A worker reuses up to `MAX_BLOCKS` blocks. If all of them are in use, the tensor gets an
    additional block, which is not reused.

    Args:
        shape: Shape of the tensor.
        dtype: Data type of the tensor.

    Attributes:
        tensor: The tensor, contiguous and not initialized.
    """

    def __init__(self, shape: tuple[int, ...], dtype: torch.dtype) -> None:
        size = _num_bytes(shape, dtype)
        self.number, self.block = _free_block(size)
        self.tensor = self.block[:size].view(dtype).view(shape)

    def __reduce__(self) -> tuple[Callable, tuple]:
        layout = tuple(self.tensor.shape), self.tensor.dtype
        return _receive, (os.getpid(), self.number, self.block, *layout)


def _num_bytes(shape: tuple[int, ...], dtype: torch.dtype) -> int:
    return math.prod(shape) * dtype.itemsize


def _free_block(size: int) -> tuple[int, Tensor]:
    """Return the number and the memory of a block for `size` bytes, marked as in use."""
    states = {number: int(block[-1]) for number, block in _worker_blocks.items()}
    free = [number for number in range(MAX_BLOCKS) if states.get(number) != IN_USE]
    fitting = [
        number
        for number in free
        if states.get(number) == FREE and len(_worker_blocks[number]) > size
    ]
    if fitting:
        number = fitting[0]
        block = _worker_blocks[number]
    else:
        number = free[0] if free else MAX_BLOCKS
        block = torch.empty(size + 1, dtype=torch.uint8).share_memory_()
        if free:
            if not _worker_blocks:
                # Drop the blocks when the worker ends. Otherwise the files of the blocks would
                # remain if torch shares memory through named files.
                Finalize(None, _worker_blocks.clear, exitpriority=-100)
            _worker_blocks[number] = block
    block[-1] = IN_USE
    return number, block


def _receive(
    worker: int, number: int, block: Tensor, shape: tuple[int, ...], dtype: torch.dtype
) -> Tensor:
    """Return the tensor in the training process. The block is FREE once the tensor is freed."""
    if number < MAX_BLOCKS:  # keep the block mapped, since mapping costs a page fault per page
        _blocks_of(worker)[number] = block
    # The finalizer writes through NumPy, since torch refuses to change tensors that were created in
    # inference mode.
    content = block.numpy()
    array = content[: _num_bytes(shape, dtype)]
    tensor = torch.from_numpy(array)  # The tensor and its views keep `array` alive.
    finalizer = weakref.finalize(array, _set_state, content, FREE)
    finalizer.atexit = False
    _finalizers[:] = [*(pending for pending in _finalizers if pending.alive), finalizer]
    return tensor.view(dtype).view(shape)


def _set_state(content: np.ndarray, state: int) -> None:
    content[-1] = state


def _abandon_blocks() -> None:
    """Before a fork, mark all blocks in use ABANDONED, since the child uses their tensors too."""
    for finalizer in _finalizers:
        detached = finalizer.detach()
        if detached:
            _, _, (content, _), _ = detached
            _set_state(content, ABANDONED)
    _finalizers.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_abandon_blocks)


def _blocks_of(worker: int) -> dict[int, Tensor]:
    """Return a worker's blocks. For a new worker, first drop the blocks of ended workers."""
    if worker not in _received_blocks:
        workers = {child.pid for child in multiprocessing.active_children()}
        for ended in _received_blocks.keys() - workers:
            _received_blocks.pop(ended, None)  # another thread may have dropped it
        _received_blocks[worker] = {}
    return _received_blocks[worker]
