"""In a long run the shipped COCO data loader keeps its workers, and their memory does not grow."""

from __future__ import annotations

import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest
from mmengine.runner import Runner

from mixdet.config.read import load_config
from tests.conftest import ROOT

SAMPLES = 20_000
# Allowed growth in MB. An image of 320 x 320 pixels has 0.3 MB, so a worker that kept one image per
# sample would grow by more than 2,000 MB.
GROWTH = 20


def resident(pid: int) -> float:
    """Return a process's resident memory in MB, without files and shared memory."""
    fields = (line.split() for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return next(int(words[1]) / 1e3 for words in fields if words[0] == "RssAnon:")


def load(coco: str) -> tuple[int, int, list[float]]:
    """Load `SAMPLES` samples in epochs.

    Returns:
        The number of epochs, the number of different sets of workers, and the memory of the largest
        worker in MB after each epoch. The epochs of the first tenth of the samples are left out.
    """
    cfg = load_config(str(ROOT / "configs/ssdlite_mixnet_m_coco.py"), data_root=coco)
    loader = Runner.build_dataloader(
        dict(cfg.train_dataloader, batch_size=8, num_workers=2), seed=0
    )
    seen, epoch, workers, memory = 0, 0, set(), []
    while seen < SAMPLES:
        loader.sampler.set_epoch(epoch)
        epoch += 1
        seen += sum(len(batch["inputs"]) for batch in loader)
        pids = tuple(sorted(worker.pid for worker in multiprocessing.active_children()))
        workers.add(pids)
        if seen > SAMPLES / 10:  # caches and allocators are warm
            memory.append(max(map(resident, pids)))
    return epoch, len(workers), memory


@pytest.mark.heavy
@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="memory is read from /proc")
def test_a_worker_does_not_grow_over_20000_samples(coco_sample):
    # A forked worker starts with its parent's memory, so the parent is a new process.
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=spawn) as pool:
        epochs, sets_of_workers, memory = pool.submit(load, str(coco_sample)).result()
    assert sets_of_workers == 1  # the same processes in all epochs
    assert epochs > 100
    late = sorted(memory[-50:])[25]
    assert late - sorted(memory[:50])[25] < GROWTH, memory[:: len(memory) // 20]
