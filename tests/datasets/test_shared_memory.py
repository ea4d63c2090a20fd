"""A worker uses its shared memory again, and never while anything of a batch is looked at."""

from __future__ import annotations

import multiprocessing
import os
from collections import defaultdict
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from mixdet.datasets import shared_memory
from mixdet.datasets.collate import packed_collate

BATCH, BATCHES = 4, 60

# of a block that could not be given back
pytestmark = pytest.mark.filterwarnings("error::pytest.PytestUnraisableExceptionWarning")


def image(index: int) -> Tensor:
    """Different for each index, and of two sizes, which change with the batch."""
    size = (3, 31, 30) if index // BATCH % 5 == 4 else (3, 20, 20)
    return torch.full(size, index, dtype=torch.float32)


class Images(Dataset):
    """`BATCHES` full ones and one that is not."""

    def __len__(self) -> int:
        return BATCH * BATCHES + 1

    def __getitem__(self, index: int) -> dict:
        return {"inputs": image(index)}


def loader(workers: int = 2, **settings) -> DataLoader:
    settings = dict(num_workers=workers, persistent_workers=True, timeout=60) | settings
    return DataLoader(Images(), BATCH, collate_fn=packed_collate, **settings)


@pytest.fixture(autouse=True)
def _nothing_mapped():
    shared_memory._mapped.clear()


class Noting(dict):
    """A worker's blocks, and how often another one came under the number of one that is mapped."""

    arrived = replaced = 0

    def __setitem__(self, number: int, block: Tensor) -> None:
        self.arrived += 1
        self.replaced += number in self and self[number].data_ptr() != block.data_ptr()
        super().__setitem__(number, block)


def test_blocks_are_used_again(monkeypatch):
    workers = defaultdict(Noting)
    monkeypatch.setattr(shared_memory, "_blocks_of", workers.__getitem__)
    for batch in loader():
        del batch
    assert sum(blocks.arrived for blocks in workers.values()) == BATCHES + 1  # none beside them
    for blocks in workers.values():
        assert len(blocks) <= 5  # two ahead, one looked at, two on their way
        assert blocks.replaced <= len(blocks)  # once, by one for larger images


def test_a_block_has_room_for_its_mark():
    for size in range(1, 40):
        shared = shared_memory.SharedTensor((size,), torch.uint8)
        assert shared.tensor.data_ptr() + size <= shared.block[-1:].data_ptr()
        shared.tensor.fill_(7)
        assert shared.block[-1] == shared_memory.LENT
        shared.block[-1] = shared_memory.FREE
    shared_memory._own.clear()


def test_a_fork_keeps_what_it_holds_of_a_batch():
    context = multiprocessing.get_context("fork")
    goes_on = context.Event()
    batches = iter(loader(1))
    start = BATCHES // 2  # by then all blocks have a large batch's size, and stay
    for _ in range(start):
        next(batches)
    held = [next(batches)["inputs"][0]]

    def look() -> None:
        goes_on.wait(60)
        os._exit(0 if torch.equal(held.pop(), image(start * BATCH)) else 1)

    process = context.Process(target=look)
    process.start()
    held.clear()
    for number, batch in enumerate(batches, start + 1):
        assert torch.equal(batch["inputs"][0], image(number * BATCH))
        del batch
    goes_on.set()
    process.join()
    assert process.exitcode == 0


def test_forks_leave_enough_blocks(monkeypatch):
    blocks = Noting()
    monkeypatch.setattr(shared_memory, "_blocks_of", lambda worker: blocks)
    for batch in loader(1):
        process = multiprocessing.get_context("fork").Process(target=batch.clear)
        process.start()
        process.join()
    assert blocks.arrived == BATCHES + 1
    assert len(blocks) <= 5


@pytest.mark.skipif(not Path("/dev/shm").is_dir(), reason="files of shared memory are not seen")
def test_workers_that_end_leave_no_file():
    strategy = torch.multiprocessing.get_sharing_strategy()
    torch.multiprocessing.set_sharing_strategy("file_system")
    try:
        left = []
        for _ in range(4):
            for _ in loader(2, persistent_workers=False):
                pass
            left.append(len(list(Path("/dev/shm").glob("torch_*"))))
    finally:
        torch.multiprocessing.set_sharing_strategy(strategy)
    assert left[-1] <= left[0] + 2  # of four, or more, a time; other processes have some too


@pytest.mark.parametrize("method", ["fork", "spawn"])
@pytest.mark.parametrize("held", [1, 12, BATCHES], ids="{} batches at once".format)
def test_no_image_changes_while_it_is_held(held, method):
    kept: list[tuple[int, Tensor]] = []
    index = 0
    for batch in loader(multiprocessing_context=method):
        row = batch["inputs"][-1][1:, 2:]  # a part of an image holds the batch
        index += len(batch["inputs"])
        kept.append((index - 1, row))
        del batch
        kept = kept[-held:]
        for number, part in kept:
            assert torch.equal(part, image(number)[1:, 2:])
    assert index == len(Images())


def test_what_is_received_in_inference_mode_is_free_after_it():
    places = set()
    batches = iter(loader(1))
    for _ in range(BATCHES):
        with torch.inference_mode():
            images = next(batches)["inputs"]
        places.add(images[0].data_ptr())
        del images  # outside
    assert len(places) <= shared_memory.KEPT


def test_an_epoch_that_is_left_early_leaves_no_block_behind():
    data = loader(1)
    places = set()
    for _ in range(3 * shared_memory.KEPT):
        for batch in data:
            places.add(batch["inputs"][0].data_ptr())
            break
        del batch
    assert len(places) <= shared_memory.KEPT
    (blocks,) = shared_memory._mapped.values()
    assert len(blocks) <= 4  # two ahead, one looked at, one on its way


def test_blocks_of_workers_that_ended_are_unmapped():
    for _ in range(3):
        for _ in loader(2, persistent_workers=False):
            pass
    workers = set(shared_memory._mapped)
    assert len(workers) <= 2
    for _ in loader(1, persistent_workers=False):
        pass
    assert not workers & set(shared_memory._mapped)
