"""Training from a data loader: how long each side waits for its images."""

from __future__ import annotations

import contextlib
import statistics
import time
from collections.abc import Callable, Sequence

from benchmarks.input import SIZE, data_loader
from benchmarks.peers import NETWORKS, check_known
from benchmarks.processes import served
from benchmarks.timing import median_of, speedup, spread, turns
from benchmarks.train import device, ready_to_train
from mixdet.datasets.transforms.photometric import PhotometricDistortion
from mixdet.machine import cores, machine
from mixdet.visual.tables import text_table

BATCH = 24  # as in our COCO configs
IMAGES = 2400  # of a round
SIDES = {  # (pipeline, form of the training step, whether a GPU distorts the colors)
    "timm in mmdet": ("mmdet", "mmdet", False),
    "MixDet": ("mixdet", "eager", False),
    "MixDet, CUDA graph": ("mixdet", "CUDA graph", False),
    "MixDet, CUDA graph, distorted on the GPU": ("mixdet", "CUDA graph", True),
}


def measure_feed(
    data_root: str,
    rounds: int = 3,
    workers: Sequence[int] | None = None,
    network: str = "MixNet-S",
    amp: bool = False,
    images: int = IMAGES,
    batch: int = BATCH,
) -> dict[str, object]:
    """Train on images from a data loader, on the GPU where there is one.

    Args:
        data_root: COCO's layout; its training images are read over and over.
        rounds: How often each side trains on that many images.
        workers: Numbers of data loader workers; by default one a core.
        network: One of `NETWORKS`.
        amp: All in mixed precision.
        images: Of a round.
        batch: Images of a step.

    Returns:
        machine, settings and rows; images a second, and the share of the time in which the training
        process had no batch to go on with.

    Raises:
        MixDetError: If there are no such images, or the network is unknown.
    """
    check_known("--network", [network], NETWORKS)
    data_loader("mixdet", data_root, 0)  # refused here rather than in a process of its own
    found = machine()
    settings = {"network": network, "size": SIZE, "batch": batch, "amp": amp}
    sides = {name: side for name, side in SIDES.items() if fits(side[1])}
    rows = [
        row
        for number in workers or [cores()]
        for row in _workers(number, sides, data_root, rounds, images, settings)
    ]
    settings |= {"rounds": rounds, "images": images, "device": device()}
    return {"kind": "feed", "machine": found, "settings": settings, "rows": rows}


def fits(form: str) -> bool:
    """Whether a form of the training step is for this machine."""
    return device() == "cuda" or form != "CUDA graph"


def _workers(
    number: int,
    sides: dict[str, tuple[str, str, bool]],
    data_root: str,
    rounds: int,
    images: int,
    settings: dict[str, object],
) -> list[dict[str, object]]:
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    waited: dict[str, list[float]] = {name: [] for name in sides}
    with contextlib.ExitStack() as stack:
        asks = {
            name: stack.enter_context(
                served(_start, *side, data_root, number, images, *settings.values())
            )
            for name, side in sides.items()
        }
        for turn, name in turns(asks, rounds):
            total, waiting, steps = asks[name](turn)
            if turn:
                seconds[name].append(total / steps / settings["batch"])
                waited[name].append(waiting / total)
    peer = next(iter(seconds.values()))
    return [
        {"workers": number, "side": name, "speedup": speedup(peer, found)}
        | {"images_per_second": median_of([1 / value for value in found])}
        | {"waiting": statistics.median(waited[name])}
        for name, found in seconds.items()
    ]


def _start(
    pipeline: str,
    form: str,
    on_device: bool,
    data_root: str,
    workers: int,
    images: int,
    network: str,
    size: int,
    batch: int,
    amp: bool,
) -> Callable[[int], tuple[float, float, int]]:
    """A process that trains for an epoch: seconds, those without a batch, and steps."""
    model, step = ready_to_train(network, form, size, batch, amp, threads=1)
    if on_device:
        model.data_preprocessor.photometric = PhotometricDistortion()
    once = len(data_loader(pipeline, data_root, 0, batch=1, passes=1))
    # one batch more than is timed
    passes = -(-(images + batch) // once)
    loader = data_loader(pipeline, data_root, workers, batch, passes, photometric=not on_device)

    def epoch(turn: int) -> tuple[float, float, int]:
        loader.sampler.set_epoch(turn)
        batches = iter(loader)
        step(next(batches))  # workers start, and fetch their first batch
        waiting, steps, start = 0.0, 0, time.perf_counter()
        while True:
            before = time.perf_counter()
            batch = next(batches, None)
            waiting += time.perf_counter() - before
            if batch is None:
                return time.perf_counter() - start, waiting, steps
            step(batch)
            steps += 1

    return epoch


def feed_table(record: dict[str, object], markdown: bool = False) -> str:
    """The record of `measure_feed` as text."""
    rows = [
        [
            row["side"],
            str(row["workers"]),
            spread(row["images_per_second"]),
            spread(row["speedup"], 2),
            f"{row['waiting']:.0%}",
        ]
        for row in record["rows"]
    ]
    settings = record["settings"]
    name = f"{settings['network']}, batches of {settings['batch']}"
    name += ", mixed precision" if settings["amp"] else ""
    return text_table([name, "workers", "images/s", "times faster", "waits"], rows, markdown)
