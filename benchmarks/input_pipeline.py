"""The training pipeline's speed: `SSDRandomCrop` against mmdet's steps that it stands for."""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import partial
from unittest import mock

from benchmarks.coco_images import PACK, coco
from benchmarks.timing import alternate, one_thread, rates, speedup, spread
from mixdet.machine import machine
from mixdet.visual.tables import text_table

SIZE = 320
BATCH = 8
PASSES = 10  # through the images, an epoch of a data loader
RECIPES = {  # (expansion, photometric distortion) beside crop, resize and flip
    "all five steps": (True, True),
    "crop and flip alone": (False, False),
}


def measure_input(
    data_root: str,
    rounds: int = 5,
    images: int | None = None,
    workers: tuple[int, ...] = (0, 1, 2),
) -> dict[str, object]:
    """Time both pipelines, to 320 x 320, file to packed tensor, in turns.

    Args:
        data_root: COCO's layout; its training images are read.
        rounds: How often each pipeline goes through all images.
        images: Only the first so many.
        workers: Numbers of data loader workers to try, with all five steps.

    Returns:
        machine, settings, recipes and workers; images a second as median, low and high. Those of
        the recipes are per second of one core's time, those of the workers per second of the clock.

    Raises:
        MixDetError: If there are no such images.
    """
    import mixdet.plugin

    from mmengine.registry import init_default_scope

    init_default_scope("mmdet")
    found = machine()
    with one_thread():
        recipes = [_recipe(name, data_root, rounds, images) for name in RECIPES]
        scaling = [_workers(number, data_root, rounds, images) for number in workers]
    settings = {"rounds": rounds, "size": SIZE, "batch": BATCH}
    return {
        "kind": "input",
        "machine": found,
        "settings": settings | {"images": len(_dataset(data_root, [], images))},
        "recipes": recipes,
        "workers": scaling,
    }


def mmdets_steps(expand: bool, photometric: bool) -> list[dict]:
    """What a config of mmdet's own steps says, from the file to the packed tensor."""
    return [
        dict(type="LoadImageFromFile"),
        dict(type="LoadAnnotations", with_bbox=True),
        *[dict(type="Expand", mean=[123.675, 116.28, 103.53], to_rgb=True)] * expand,
        dict(type="MinIoURandomCrop"),
        dict(type="Resize", scale=(SIZE, SIZE), keep_ratio=False),
        dict(type="RandomFlip", prob=0.5),
        *[dict(type="PhotoMetricDistortion")] * photometric,
        PACK,
    ]


def our_steps(expand: bool, photometric: bool) -> list[dict]:
    """The same by `SSDRandomCrop`, packed as it lies."""
    crop = dict(type="SSDRandomCrop", scale=(SIZE, SIZE))
    if not expand:
        crop["expand_ratio"] = None
    if photometric:
        crop["photometric"] = {}
    return [crop, dict(type="PackChannelsLast")]


PIPELINES = {"mmdet": mmdets_steps, "mixdet": our_steps}
COLLATE = {"mmdet": "pseudo_collate", "mixdet": "packed_collate"}


def _dataset(data_root: str, steps: list[dict], images: int | None):
    from mmdet.registry import DATASETS

    pipeline = [dict(type="SeedSample"), *steps]
    filter_cfg = dict(filter_empty_gt=True, min_size=32)
    return DATASETS.build(
        coco(data_root, "train2017", pipeline, filter_cfg=filter_cfg, indices=images)
    )


def _indices(dataset, turn: int) -> Iterator[int]:
    """All of a data set's, with the keys that `SeedSample` reads: another draw every turn."""
    from mixdet.datasets.samplers import SampleIndex

    return (SampleIndex(index, (0, turn, index)) for index in range(len(dataset)))


def _recipe(name: str, data_root: str, rounds: int, images: int | None) -> dict[str, object]:
    """Both pipelines on one core, and where their time goes."""
    data = {
        side: _dataset(data_root, steps(*RECIPES[name]), images)
        for side, steps in PIPELINES.items()
    }

    def go_through(dataset, turn: int) -> None:
        for index in _indices(dataset, turn):
            dataset[index]

    seconds = alternate(
        {side: partial(go_through, dataset) for side, dataset in data.items()},
        rounds,
        clock=time.process_time,
    )
    result: dict[str, object] = {"recipe": name, "speedup": speedup(*seconds.values())}
    for side, dataset in data.items():
        steps = _milliseconds(dataset)
        result[side] = {
            "images_per_second": rates(seconds[side], len(dataset)),
            "milliseconds": steps,
            "decode_share": steps["of which decode"]
            / (sum(steps.values()) - steps["of which decode"]),
        }
    return result


def _milliseconds(dataset) -> dict[str, float]:
    """Mean time of each step for one image, and of OpenCV's decoding in them."""
    import cv2

    spent = {"annotation": 0.0}
    decode, decoding = cv2.imdecode, 0.0

    def timed(*args):
        nonlocal decoding
        start = time.process_time()
        image = decode(*args)
        decoding += time.process_time() - start
        return image

    with mock.patch.object(cv2, "imdecode", timed):
        for index in _indices(dataset, 0):
            start = time.process_time()
            results = dataset.get_data_info(index)
            results["sample_idx"] = index
            end = time.process_time()
            spent["annotation"] += end - start
            for step in dataset.pipeline.transforms:
                start = end
                results = step(results)
                end = time.process_time()
                name = type(step).__name__
                spent[name] = spent.get(name, 0.0) + end - start
    spent["of which decode"] = decoding
    return {name: 1000 * seconds / len(dataset) for name, seconds in spent.items()}


def data_loader(
    side: str,
    data_root: str,
    workers: int,
    batch: int = BATCH,
    passes: int = PASSES,
    images: int | None = None,
    photometric: bool = True,
):
    """A training data loader as a config of mmdet's, or of ours, makes it; its workers stay.

    Args:
        side: Of `PIPELINES`.
        data_root: COCO's layout.
        workers: Processes that load, or 0.
        batch: Images of a batch.
        passes: Through the images in an epoch, whose start is a small part then.
        images: Only the first so many.
        photometric: Whether it has the last of the five steps.
    """
    from mmengine.runner import Runner

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


def _workers(number: int, data_root: str, rounds: int, images: int | None) -> dict[str, object]:
    """Both pipelines behind a data loader; ours with our collating."""
    loaders = {side: data_loader(side, data_root, number, images=images) for side in PIPELINES}

    def epoch(loader, turn: int) -> None:
        loader.sampler.set_epoch(turn)
        for _ in loader:
            pass

    seconds = alternate({side: partial(epoch, loader) for side, loader in loaders.items()}, rounds)
    result: dict[str, object] = {"workers": number, "speedup": speedup(*seconds.values())}
    for side, found in seconds.items():
        result[side] = {"images_per_second": rates(found, len(loaders[side]) * BATCH)}
    return result


def input_summary(record: dict[str, object]) -> str:
    """The speeds in the record of `measure_input`, as Markdown."""
    header, *rows = _speeds(record)
    return text_table(header[:4], [row[:4] for row in rows], markdown=True)


def input_table(record: dict[str, object], markdown: bool = False) -> str:
    """The record of `measure_input` as text: speeds, then where the time goes."""
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


def _speeds(record: dict[str, object]) -> list[list[str]]:
    """A header and its rows; the last two columns are what part of the time decoding takes."""
    speeds = [
        *((f"{row['recipe']}, one core", row) for row in record["recipes"]),
        *((f"data loader, {row['workers']} workers", row) for row in record["workers"]),
    ]
    rows = [
        [
            name,
            *(spread(row[side]["images_per_second"]) for side in PIPELINES),
            spread(row["speedup"], 1),
            *(
                f"{row[side]['decode_share']:.0%}" if "decode_share" in row[side] else ""
                for side in PIPELINES
            ),
        ]
        for name, row in speeds
    ]
    header = ["", "mmdet, images/s", "MixDet, images/s", "times faster"]
    return [[*header, "mmdet, decode", "MixDet, decode"], *rows]
