"""`feed`: train from a data loader, and time how long the training step waits for images."""

from __future__ import annotations

import contextlib
import statistics
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from benchmarks.input_pipeline import SIZE, data_loader
from benchmarks.networks import NETWORKS, check_known
from benchmarks.processes import remote_function
from benchmarks.timing import format_range, median_and_range, speedup, turn_order
from benchmarks.training_step import device, prepare_training, runs_here
from mixdet.datasets.transforms.photometric import PhotometricDistortion
from mixdet.machine import cores, machine_record
from mixdet.visual.tables import text_table

BATCH = 24  # as in our COCO configs
IMAGES = 2400  # per round


class TrainingSetup(NamedTuple):
    """An input pipeline and a form of the training step."""

    pipeline: str  # a key of `benchmarks.input_pipeline.PIPELINES`
    form: str  # a form that `prepare_training` takes
    distort_on_gpu: bool = False  # whether the data preprocessor distorts colors


SETUPS = {
    "timm in mmdet": TrainingSetup("mmdet", "mmdet"),
    "MixDet": TrainingSetup("mixdet", "eager"),
    "MixDet, CUDA graph": TrainingSetup("mixdet", "CUDA graph"),
    "MixDet, CUDA graph, distorted on the GPU": TrainingSetup("mixdet", "CUDA graph", True),
}


def measure(
    data_root: str,
    rounds: int = 5,
    workers: Sequence[int] | None = None,
    network: str = "MixNet-S",
    images: int = IMAGES,
    batch: int = BATCH,
) -> dict[str, object]:
    """Train on images from a data loader, on the GPU if there is one.

    Args:
        data_root: A folder in COCO's layout. Its training images are read over and over.
        rounds: Number of timed rounds.
        workers: Numbers of data loader workers to time with. None means one worker per core.
        network: A key of `NETWORKS`.
        images: Images per round.
        batch: Images per step.

    Returns:
        machine, settings and rows. The rows have images per second, and the fraction of the time
        in which the training process waited for a batch.

    Raises:
        MixDetError: The images are missing, or the network is unknown.
    """
    check_known("--network", [network], NETWORKS)
    data_loader("mixdet", data_root, 0)  # raises here if the data set is missing
    measured_on = machine_record()
    settings = {"network": network, "size": SIZE, "batch": batch}
    setups = {name: setup for name, setup in SETUPS.items() if runs_here(setup.form)}
    rows = [
        row
        for number in workers or [cores()]
        for row in _measure_workers(number, setups, data_root, rounds, images, settings)
    ]
    settings |= {"rounds": rounds, "images": images, "device": device()}
    return {"kind": "feed", "machine": measured_on, "settings": settings, "rows": rows}


def _measure_workers(
    number: int,
    setups: dict[str, TrainingSetup],
    data_root: str,
    rounds: int,
    images: int,
    settings: dict[str, object],
) -> list[dict[str, object]]:
    """Time all setups in turns with a number of data loader workers."""
    seconds: dict[str, list[float]] = {name: [] for name in setups}
    waited: dict[str, list[float]] = {name: [] for name in setups}
    with contextlib.ExitStack() as stack:
        functions = {
            name: stack.enter_context(
                remote_function(_start_epochs, setup, data_root, number, images, *settings.values())
            )
            for name, setup in setups.items()
        }
        for turn, name in turn_order(functions, rounds):
            total, waiting, steps = functions[name](turn)
            if turn:
                seconds[name].append(total / steps / settings["batch"])
                waited[name].append(waiting / total)
    peer = next(iter(seconds.values()))
    return [
        {"workers": number, "side": name, "speedup": speedup(peer, values)}
        | {"images_per_second": median_and_range([1 / value for value in values])}
        | {"waiting": statistics.median(waited[name])}
        for name, values in seconds.items()
    ]


def _start_epochs(
    setup: TrainingSetup,
    data_root: str,
    workers: int,
    images: int,
    network: str,
    size: int,
    batch: int,
) -> Callable[[int], tuple[float, float, int]]:
    """Return a function that trains an epoch and returns (seconds, seconds of waiting, steps)."""
    model, step = prepare_training(network, setup.form, size, batch, amp=False, threads=1)
    if setup.distort_on_gpu:
        model.data_preprocessor.photometric = PhotometricDistortion()
    images_in_folder = len(data_loader(setup.pipeline, data_root, 0, batch=1, passes=1))
    # Rounded up. The first batch comes in addition to `images`, since it is not timed.
    passes = -(-(images + batch) // images_in_folder)
    photometric = not setup.distort_on_gpu
    loader = data_loader(setup.pipeline, data_root, workers, batch, passes, photometric=photometric)

    def train_epoch(turn: int) -> tuple[float, float, int]:
        loader.sampler.set_epoch(turn)
        batches = iter(loader)
        step(next(batches))  # not timed, since the workers first have to start
        waiting, steps, start = 0.0, 0, time.perf_counter()
        while True:
            before = time.perf_counter()
            data = next(batches, None)
            waiting += time.perf_counter() - before
            if data is None:
                return time.perf_counter() - start, waiting, steps
            step(data)
            steps += 1

    return train_epoch


def table(record: dict[str, object], markdown: bool = False) -> str:
    """Lay out the record of `measure` as text."""
    rows = [
        [
            row["side"],
            str(row["workers"]),
            format_range(row["images_per_second"]),
            format_range(row["speedup"], 2),
            f"{row['waiting']:.0%}",
        ]
        for row in record["rows"]
    ]
    settings = record["settings"]
    title = f"{settings['network']}, batches of {settings['batch']}"
    return text_table([title, "workers", "images/s", "times faster", "waits"], rows, markdown)
