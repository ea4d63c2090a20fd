"""One measurement of the benchmark `scale`, in a process of its own.

The benchmark runs this file as a script, with the checkout to measure as the first folder of the
import path. It prints its result as JSON.
"""

from __future__ import annotations

import contextlib
import json
import runpy
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import mixdet.plugin

import torch
from mmdet.registry import DATASETS
from mmengine.model import BaseModel
from mmengine.registry import init_default_scope
from torch.utils.data import DataLoader, Dataset

from mixdet.evaluation.coco_scores import load_coco

try:
    import mixdet.launch
except ImportError:  # an older version
    import mixdet.engine.launch  # noqa: F401

CONFIG = "configs/ssdlite_mixnet_s_coco.py"
WORKERS = 2
READ_IN_WORKERS = 500  # samples after which a worker states its memory


class FirstForward(BaseException):
    """Ends a training at its first forward pass."""


def build_data_set(kind: str, root: Path) -> Dataset:
    """Build the training data set of COCO, without a filter."""
    settings = {
        "ann_file": str(root / "annotations/instances_train2017.json"),
        "data_prefix": {"img": str(root / "train2017")},
        "pipeline": [
            {"type": "LoadImageFromFile"},
            {"type": "LoadAnnotations", "with_bbox": True},
            {"type": "PackDetInputs"},
        ],
    }
    return DATASETS.build({"type": kind, **settings})


def start_training(root: Path) -> None:
    """Run `tools/train.py` of the checkout in the current folder, up to the first forward pass."""

    def stop(*arguments: object, **options: object) -> None:
        raise FirstForward

    BaseModel.train_step = stop
    options = ("train_dataloader.num_workers=0", "train_dataloader.persistent_workers=False")
    with tempfile.TemporaryDirectory() as work_dir:
        sys.argv = ["train.py", CONFIG, "--data-root", str(root), "--work-dir", work_dir]
        sys.argv += ["--cfg-options", *options]
        with contextlib.suppress(FirstForward):
            runpy.run_path("tools/train.py", run_name="__main__")
            raise RuntimeError("the training ended without a forward pass")


TASKS: dict[str, Callable[[Path], object]] = {
    "mmdet": lambda root: build_data_set("CocoDataset", root),
    "data set": lambda root: build_data_set("SafeCocoDataset", root),
    "training": start_training,
    "metric": lambda root: load_coco(root / "annotations/instances_train2017.json"),
}


class MemoryOfWorkers(Dataset):
    """Reads samples of a data set in workers, and returns how much memory each worker has.

    Args:
        dataset: The data set.
    """

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset
        self.count = 0

    def __len__(self) -> int:
        return WORKERS * READ_IN_WORKERS

    def __getitem__(self, index: int) -> float:
        """Return the unique memory in MB of the worker after its last sample, and 0 before."""
        self.dataset[index % len(self.dataset)]
        self.count += 1
        return unique_memory() if self.count == READ_IN_WORKERS else 0.0


def unique_memory() -> float:
    """Return the memory of this process in MB that it shares with no other process."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private")) / 1e3


def process_memory(key: str) -> float:
    """Return the current ('VmRSS') or peak ('VmHWM') memory of this process in MB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1e3 for line in lines if line.startswith(key))


def main() -> None:
    """Measure a task: the CPU time and the memory beyond the imports."""
    name, root = sys.argv[1], Path(sys.argv[2])
    init_default_scope("mmdet")
    torch.set_num_threads(1)
    before = process_memory("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak of the imports does not count
    start = time.process_time()
    result = TASKS[name](root)
    seconds = time.process_time() - start
    measured = {
        "cpu": seconds,
        "peak_mb": process_memory("VmHWM") - before,
        "stays_mb": process_memory("VmRSS") - before,
    }
    if result is not None and hasattr(result, "pipeline"):
        samples = MemoryOfWorkers(result)
        loader = DataLoader(samples, num_workers=WORKERS, collate_fn=max)
        measured["worker_mb"] = max(loader)
    print(json.dumps(measured))


if __name__ == "__main__":
    main()
