"""A worker reuses a shared memory block, but only after the tensor in it has been freed."""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from mixdet.datasets import packed_collate
from mixdet.datasets.shared_memory import MAX_BLOCKS, SharedTensor

BATCH, BATCHES = 4, 60
# The most blocks of one worker that are mapped at once: two for batches that were fetched ahead,
# one for the batch in use, and two for batches that are being sent.
BLOCKS_PER_WORKER = 5

# Blocks are freed by finalizers. An exception in a finalizer must fail the test.
pytestmark = pytest.mark.filterwarnings("error::pytest.PytestUnraisableExceptionWarning")
needs_maps = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="reads /proc/self/maps"
)


def image(index: int) -> Tensor:
    """Return an image filled with its index. The images of every fifth batch are larger."""
    size = (3, 31, 30) if index // BATCH % 5 == 4 else (3, 20, 20)
    return torch.full(size, index, dtype=torch.float32)


class Images(Dataset):
    """`BATCHES` full batches and one smaller batch."""

    def __len__(self) -> int:
        return BATCH * BATCHES + 1

    def __getitem__(self, index: int) -> dict:
        return {"inputs": image(index)}


def loader(workers: int = 2, **settings) -> DataLoader:
    settings = dict(num_workers=workers, persistent_workers=True, timeout=60) | settings
    return DataLoader(Images(), BATCH, collate_fn=packed_collate, **settings)


def mapped_blocks() -> set[str]:
    """Names of torch's shared memory files in this process, `torch_<pid of the worker>_...`."""
    lines = Path("/proc/self/maps").read_text().splitlines()
    paths = (line.split(maxsplit=5)[5] for line in lines if "/torch_" in line)
    return {Path(path.removesuffix(" (deleted)")).name for path in paths}


def run_in_fork(function: Callable[[], None]) -> int:
    """Run a function in a forked process, which exits with 1 after an exception."""
    process = multiprocessing.get_context("fork").Process(target=function)
    process.start()
    process.join()
    return process.exitcode


@needs_maps
def test_blocks_are_reused():
    others, seen = mapped_blocks(), set()
    for batch in loader():
        seen |= mapped_blocks() - others
        del batch
    # There are two workers. Each block is replaced at most once, by a block for larger images.
    assert 0 < len(seen) <= 2 * 2 * BLOCKS_PER_WORKER < BATCHES


def use_several_blocks_of_each_size() -> None:
    for size in range(1, 40):
        shared = [SharedTensor((size,), torch.uint8) for _ in range(2)]
        for value, part in enumerate(shared):
            part.tensor.fill_(value)  # overwrites the block's state if the block is too small
        shared.append(SharedTensor((size,), torch.uint8))
        shared[-1].tensor.fill_(2)
        for value, part in enumerate(shared):
            assert (part.tensor == value).all()


def test_blocks_do_not_overlap():
    assert run_in_fork(use_several_blocks_of_each_size) == 0


def test_images_in_a_forked_process_do_not_change():
    context = multiprocessing.get_context("fork")
    batches_are_over = context.Event()
    batches = iter(loader(1))
    start = BATCHES // 2  # by then all blocks have the size of a large batch
    for _ in range(start):
        next(batches)
    held = [next(batches)["inputs"][0]]

    def look() -> None:
        batches_are_over.wait(60)
        os._exit(0 if torch.equal(held.pop(), image(start * BATCH)) else 1)

    process = context.Process(target=look)
    process.start()
    held.clear()
    for number, batch in enumerate(batches, start + 1):
        assert torch.equal(batch["inputs"][0], image(number * BATCH))
        del batch
    batches_are_over.set()
    process.join()
    assert process.exitcode == 0


@pytest.mark.heavy
@needs_maps
def test_forks_do_not_use_up_the_blocks():
    others = mapped_blocks()
    for batch in loader(1):
        run_in_fork(batch.clear)
        assert 0 < len(mapped_blocks() - others) <= BLOCKS_PER_WORKER < MAX_BLOCKS


@pytest.mark.skipif(not Path("/dev/shm").is_dir(), reason="lists the files of shared memory")
def test_workers_that_end_leave_no_shared_memory_file():
    strategy = torch.multiprocessing.get_sharing_strategy()
    torch.multiprocessing.set_sharing_strategy("file_system")
    try:
        counts = []
        for _ in range(4):
            for _ in loader(2, persistent_workers=False):
                pass
            counts.append(len(list(Path("/dev/shm").glob("torch_*"))))
    finally:
        torch.multiprocessing.set_sharing_strategy(strategy)
    # Each round creates at least four files. Up to two new files may belong to other processes.
    assert counts[-1] <= counts[0] + 2


@pytest.mark.parametrize("method", ["fork", pytest.param("spawn", marks=pytest.mark.heavy)])
@pytest.mark.parametrize("held", [1, 12, BATCHES], ids="{} batches at once".format)
def test_no_image_changes_while_it_is_held(held, method):
    parts: list[tuple[int, Tensor]] = []
    index = 0
    for batch in loader(multiprocessing_context=method):
        part = batch["inputs"][-1][1:, 2:]  # a view of an image keeps the block in use
        index += len(batch["inputs"])
        parts.append((index - 1, part))
        del batch
        parts = parts[-held:]
        for number, part in parts:
            assert torch.equal(part, image(number)[1:, 2:])
    assert index == len(Images())


@needs_maps
def test_images_received_in_inference_mode_free_their_block_outside_of_it():
    others, seen = mapped_blocks(), set()
    batches = iter(loader(1))
    for _ in range(BATCHES):
        with torch.inference_mode():
            images = next(batches)["inputs"]
        seen |= mapped_blocks() - others
        del images  # outside of inference mode
    assert 0 < len(seen) <= 2 * BLOCKS_PER_WORKER < BATCHES


@needs_maps
def test_an_epoch_that_is_left_early_leaves_no_block_behind():
    data = loader(1)
    others = mapped_blocks()
    for _ in range(3 * MAX_BLOCKS):
        batch = next(iter(data))
        assert 0 < len(mapped_blocks() - others) <= BLOCKS_PER_WORKER
        del batch


@needs_maps
def test_blocks_of_workers_that_ended_are_unmapped():
    def workers() -> set[str]:
        return {name.split("_")[1] for name in mapped_blocks()}

    for _ in range(3):
        for _ in loader(2, persistent_workers=False):
            pass
    ended = workers()
    assert 0 < len(ended) <= 2
    for _ in loader(1, persistent_workers=False):
        pass
    assert not ended & workers()
