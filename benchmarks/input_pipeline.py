"""`input`: time `SSDRandomCrop` against the transforms of mmdet that it replaces."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from functools import partial

import mixdet.plugin

import cv2
from mmdet.datasets import CocoDataset
from mmdet.registry import DATASETS
from mmengine.registry import init_default_scope
from mmengine.runner import Runner
from torch.utils.data import DataLoader

from benchmarks.coco_images import PACK_DET_INPUTS, coco_dataset
from benchmarks.timing import (
    format_range,
    items_per_second,
    one_thread,
    speedup,
    time_in_turns,
)
from mixdet.datasets.samplers import SampleIndex
from mixdet.machine import machine_record
from mixdet.visual.tables import text_table

SIZE = 320
BATCH = 8
# Passes over the images per epoch. They make the epoch long, so the start of the workers takes only
# a small share of the time.
PASSES = 10
# (expand the image, distort the colors). Every recipe also crops, resizes and flips the image.
RECIPES = {
    "all five steps": (True, True),
    "crop and flip alone": (False, False),
}


def measure(
    data_root: str,
    rounds: int = 5,
    images: int | None = None,
    workers: tuple[int, ...] = (0, 1, 2),
) -> dict[str, object]:
    """Time both pipelines in turns, from the image file to the packed tensor of 320 x 320.

    Args:
        data_root: A folder in COCO's layout. Its training images are read.
        rounds: Number of timed rounds, each over all images.
        images: Number of images to read, starting with the first. None reads all.
        workers: Numbers of data loader workers to time. They run the recipe with all five steps.

    Returns:
        A dict with the keys kind, machine, settings, recipes and workers. The entries of `recipes`
        have images per second of CPU time. Those of `workers` have images per second of wall time.

    Raises:
        MixDetError: The images are missing.
    """
    init_default_scope("mmdet")
    measured_on = machine_record()
    with one_thread():
        recipes = [_measure_recipe(name, data_root, rounds, images) for name in RECIPES]
        scaling = [_measure_workers(number, data_root, rounds, images) for number in workers]
    settings = {"rounds": rounds, "size": SIZE, "batch": BATCH}
    return {
        "kind": "input",
        "machine": measured_on,
        "settings": settings | {"images": len(_dataset(data_root, [], images))},
        "recipes": recipes,
        "workers": scaling,
    }


def mmdet_steps(expand: bool, photometric: bool) -> list[dict]:
    """Return the pipeline of mmdet's own transforms."""
    return [
        dict(type="LoadImageFromFile"),
        dict(type="LoadAnnotations", with_bbox=True),
        *[dict(type="Expand", mean=[123.675, 116.28, 103.53], to_rgb=True)] * expand,
        dict(type="MinIoURandomCrop"),
        dict(type="Resize", scale=(SIZE, SIZE), keep_ratio=False),
        dict(type="RandomFlip", prob=0.5),
        *[dict(type="PhotoMetricDistortion")] * photometric,
        PACK_DET_INPUTS,
    ]


def our_steps(expand: bool, photometric: bool) -> list[dict]:
    """Return MixDet's pipeline. Its samples have the same distribution as mmdet's."""
    crop = dict(type="SSDRandomCrop", scale=(SIZE, SIZE))
    if not expand:
        crop["expand_ratio"] = None
    if photometric:
        crop["photometric"] = {}
    return [crop, dict(type="PackChannelsLast")]


PIPELINES = {"mmdet": mmdet_steps, "mixdet": our_steps}
COLLATE = {"mmdet": "pseudo_collate", "mixdet": "packed_collate"}


def data_loader(
    side: str,
    data_root: str,
    workers: int,
    batch: int = BATCH,
    passes: int = PASSES,
    images: int | None = None,
    photometric: bool = True,
) -> DataLoader:
    """Build a training data loader as the configs of mmdet or of MixDet do.

    Args:
        side: A key of `PIPELINES`.
        data_root: A folder in COCO's layout.
        workers: Number of worker processes. They are kept between epochs. 0 loads in this process.
        batch: Images per batch.
        passes: Number of passes over the images in one epoch.
        images: Number of images to read, starting with the first. None reads all.
        photometric: Whether the pipeline distorts colors.

    Raises:
        MixDetError: The images are missing.
    """
    dataset = _dataset(data_root, PIPELINES[side](True, photometric), images)
    dataset.get_subset_(list(range(len(dataset))) * passes)
    config = dict(
        dataset=dataset,
        sampler=dict(type="SeededSampler"),
        collate_fn=dict(type=COLLATE[side]),
        batch_size=batch,
        num_workers=workers,
        persistent_workers=workers > 0,
        multiprocessing_context="fork" if workers else None,  # as in our configs
        drop_last=True,
    )
    return Runner.build_dataloader(config, seed=0)


def _dataset(data_root: str, steps: list[dict], images: int | None) -> CocoDataset:
    pipeline = [dict(type="SeedSample"), *steps]
    filter_cfg = dict(filter_empty_gt=True, min_size=32)
    return DATASETS.build(
        coco_dataset(data_root, "train2017", pipeline, filter_cfg=filter_cfg, indices=images)
    )


def _indices(dataset: CocoDataset, turn: int) -> Iterator[int]:
    """Yield every index with the seed that `SeedSample` uses. Each turn (round) has other seeds."""
    return (SampleIndex(index, (0, turn, index)) for index in range(len(dataset)))


def _measure_recipe(name: str, data_root: str, rounds: int, images: int | None) -> dict:
    """Time both pipelines on one core, and each of their steps."""
    datasets = {
        side: _dataset(data_root, steps(*RECIPES[name]), images)
        for side, steps in PIPELINES.items()
    }

    def read_all(dataset: CocoDataset, turn: int) -> None:
        for index in _indices(dataset, turn):
            dataset[index]

    tasks = {side: partial(read_all, dataset) for side, dataset in datasets.items()}
    seconds = time_in_turns(tasks, rounds, clock=time.process_time)
    result: dict[str, object] = {"recipe": name, "speedup": speedup(*seconds.values())}
    for side, dataset in datasets.items():
        steps = _step_milliseconds(dataset)
        decode = steps["of which decode"]
        result[side] = {
            "images_per_second": items_per_second(seconds[side], len(dataset)),
            "milliseconds": steps,
            "decode_share": decode / (sum(steps.values()) - decode),
        }
    return result


def _step_milliseconds(dataset: CocoDataset) -> dict[str, float]:
    """Return the mean milliseconds per image of each step, and of decoding.

    The time of decoding is also contained in the step that decodes.
    """
    seconds_by_step = {"annotation": 0.0}
    with timed_decoder() as decode_seconds:
        for index in _indices(dataset, 0):
            start = time.process_time()
            results = dataset.get_data_info(index)
            results["sample_idx"] = index
            end = time.process_time()
            seconds_by_step["annotation"] += end - start
            for step in dataset.pipeline.transforms:
                start = end
                results = step(results)
                end = time.process_time()
                name = type(step).__name__
                seconds_by_step[name] = seconds_by_step.get(name, 0.0) + end - start
    seconds_by_step["of which decode"] = sum(decode_seconds)
    return {name: 1000 * seconds / len(dataset) for name, seconds in seconds_by_step.items()}


@contextlib.contextmanager
def timed_decoder() -> Iterator[list[float]]:
    """Collect the seconds of every call of `cv2.imdecode`, which both pipelines decode with."""
    decode = cv2.imdecode
    seconds: list[float] = []

    def timed(*args):
        start = time.process_time()
        image = decode(*args)
        seconds.append(time.process_time() - start)
        return image

    cv2.imdecode = timed
    try:
        yield seconds
    finally:
        cv2.imdecode = decode


def _measure_workers(number: int, data_root: str, rounds: int, images: int | None) -> dict:
    """Time a data loader with each pipeline and its collate function."""
    loaders = {side: data_loader(side, data_root, number, images=images) for side in PIPELINES}

    def read_epoch(loader: DataLoader, turn: int) -> None:
        loader.sampler.set_epoch(turn)
        for _ in loader:
            pass

    tasks = {side: partial(read_epoch, loader) for side, loader in loaders.items()}
    seconds = time_in_turns(tasks, rounds)
    result: dict[str, object] = {"workers": number, "speedup": speedup(*seconds.values())}
    for side, values in seconds.items():
        rates = items_per_second(values, len(loaders[side]) * BATCH)
        result[side] = {"images_per_second": rates}
    return result


def table(record: dict[str, object], markdown: bool = False) -> str:
    """Lay out the record of `measure` as text: speeds, then the time of each step."""
    header, *rows = _speeds(record)
    steps = [
        [f"{row['recipe']}: {side}, {step}", f"{value:.2f}"]
        for row in record["recipes"]
        for side in PIPELINES
        for step, value in row[side]["milliseconds"].items()
    ]
    return "\n\n".join(
        [
            text_table(header, rows, markdown),
            text_table(["step", "ms per image"], steps, markdown),
        ]
    )


def page_table(record: dict[str, object]) -> str:
    """Lay out the speeds as Markdown."""
    header, *rows = _speeds(record)
    return text_table(header[:4], [row[:4] for row in rows], markdown=True)


def _speeds(record: dict[str, object]) -> list[list[str]]:
    """Return a header and rows. The last two columns are the decoder's share of the time."""
    speeds = [
        *((f"{row['recipe']}, one core", row) for row in record["recipes"]),
        *((f"data loader, {row['workers']} workers", row) for row in record["workers"]),
    ]
    rows = [
        [
            name,
            *(format_range(row[side]["images_per_second"]) for side in PIPELINES),
            format_range(row["speedup"], 1),
            *(
                f"{row[side]['decode_share']:.0%}" if "decode_share" in row[side] else ""
                for side in PIPELINES
            ),
        ]
        for name, row in speeds
    ]
    header = ["", "mmdet, images/s", "MixDet, images/s", "times faster"]
    return [[*header, "mmdet, decode", "MixDet, decode"], *rows]
