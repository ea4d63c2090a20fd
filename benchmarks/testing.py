"""`eval`: time the testing of a detector with MixDet and with mmdet, from files to the metric."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

import mixdet.plugin

import torch
from mmdet.models.dense_heads.base_dense_head import BaseDenseHead
from mmdet.registry import DATASETS
from mmengine.config import Config, ConfigDict
from mmengine.runner import Runner
from torch import nn

from benchmarks.coco_images import PACK_DET_INPUTS, coco_dataset
from benchmarks.networks import NETWORKS, check_known, our_model, peer_model
from benchmarks.processes import remote_function, time_remote_in_turns
from benchmarks.timing import format_range, items_per_second, speedup
from benchmarks.weights import copy_weights, initialize_as_trained
from mixdet.config.data_paths import set_data_root
from mixdet.config.read import load_config
from mixdet.config.shipped import shipped_folder
from mixdet.evaluation.evaluators import BACKENDS, load_backend
from mixdet.inference.trained import TrainedNetwork
from mixdet.machine import machine_record
from mixdet.visual.tables import text_table

SIZE = 320
SCORE_THRESHOLDS = (1e-8, 1e-3)  # our configs for the paper's Table 1 use 1e-8


def measure(
    data_root: str,
    trained: Sequence[tuple[str, str]] = (),
    rounds: int = 5,
    networks: Sequence[str] = tuple(NETWORKS),
    times: int = 1,
    backends: Sequence[str] = BACKENDS[:1],
    score_thresholds: Sequence[float] = SCORE_THRESHOLDS,
) -> dict[str, object]:
    """Time `Runner.test` with mmdet and with MixDet.

    mmdet's side uses mmdet's detector, head, data set, metric and hooks, and tests one image at a
    time as mmdet's configs do. MixDet's side follows MixDet's configs. Each side runs in its own
    process.

    Args:
        data_root: A folder in COCO's layout. Its validation images are read.
        trained: Pairs (config, checkpoint) of more detectors. Each is tested on its config's data.
        rounds: Number of timed rounds.
        networks: Keys of `NETWORKS`, to test on COCO's images with random weights.
        times: How often a test repeats COCO's images, each time with new ids. With many images,
            work that a test does once, such as fusing, takes a small share of the time.
        backends: Backends of MixDet's metric to test with. mmdet's side always uses pycocotools.
        score_thresholds: Score thresholds to test with.

    Returns:
        A record with these keys: `kind`, `machine`, `settings` and `detectors` (images per second).

    Raises:
        MixDetError: The images are missing, a name is unknown, or a file cannot be read.
    """
    check_known("--networks", networks, NETWORKS)
    for backend in backends:
        load_backend(backend)  # raises if there is no such backend
    coco_dataset(data_root, "val2017", [])  # raises if the annotation file is missing
    measured_on = machine_record()
    detectors = [(name, str(data_root)) for name in networks] + [tuple(pair) for pair in trained]
    rows = [
        row
        for detector in detectors
        for threshold in score_thresholds
        for row in _measure_detector(*detector, threshold, times, rounds, backends)
    ]
    settings = {"rounds": rounds, "threads": torch.get_num_threads(), "times": times}
    return {
        "kind": "eval",
        "machine": measured_on,
        "settings": settings,
        "detectors": rows,
    }


def paper_test_cfg(score_threshold: float) -> ConfigDict:
    """Return the paper's post-processing: class-aware NMS at IoU 0.6, 100 boxes per image."""
    nms = dict(type="nms", iou_threshold=0.6)
    return ConfigDict(
        nms_pre=1000, nms=nms, min_bbox_size=0, score_thr=score_threshold, max_per_img=100
    )


def _measure_detector(
    name: str, source: str, threshold: float, times: int, rounds: int, backends: Sequence[str]
) -> list[dict[str, object]]:
    """Time both sides in turns on one detector. See `make_test_runner` for the arguments."""
    threads = torch.get_num_threads()
    settings = (name, source, threshold, times, threads)
    with ExitStack() as stack:
        mmdet = stack.enter_context(remote_function(_start_testing, "mmdet", *settings))
        ours = {
            backend: stack.enter_context(
                remote_function(_start_testing, "mixdet", *settings, backend)
            )
            for backend in backends
        }
        images = mmdet("images")
        tasks = {side: (function, "test") for side, function in {"mmdet": mmdet, **ours}.items()}
        seconds = time_remote_in_turns(tasks, rounds, threads)
    return [
        {
            "detector": name if name in NETWORKS else Path(name).stem,
            "images": images,
            "score_thr": threshold,
            "backend": backend,
            "speedup": speedup(seconds["mmdet"], seconds[backend]),
            "mmdet": {"images_per_second": items_per_second(seconds["mmdet"], images)},
            "mixdet": {"images_per_second": items_per_second(seconds[backend], images)},
        }
        for backend in backends
    ]


def _start_testing(
    side: str,
    name: str,
    source: str,
    threshold: float,
    times: int,
    threads: int,
    backend: str = BACKENDS[0],
) -> Callable[[str], object]:
    """Return a function that takes 'test' to run the test, or 'images' to count the images."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # loggers and pycocotools print to stdout
    torch.set_num_threads(threads)
    runner = make_test_runner(side, name, source, threshold, tempfile.mkdtemp(), times, backend)

    def answer(request: str) -> object:
        return runner.test() if request == "test" else len(runner.test_dataloader.dataset)

    return answer


def make_test_runner(
    side: str,
    name: str,
    source: str,
    threshold: float,
    work_dir: str,
    times: int = 1,
    backend: str = BACKENDS[0],
) -> Runner:
    """Build the runner of `tools/test.py` for one side.

    Args:
        side: 'mmdet' or 'mixdet'.
        name: A key of `NETWORKS`, or the path of a config.
        source: A folder in COCO's layout for a network, or the path of a checkpoint for a config.
        threshold: Score threshold.
        work_dir: Folder for the runner's files.
        times: See `measure`.
        backend: Backend of MixDet's metric.
    """
    if name in NETWORKS:
        cfg = load_config(str(shipped_folder("configs") / "ssdlite_mixnet_s_coco.py"))
        set_data_root(cfg, source)
        _repeat_images(cfg, times, Path(work_dir))
        peer, ours = peer_model(name, SIZE), our_model(name, SIZE)
        dataset = DATASETS.build(cfg.test_dataloader.dataset)
        batch = {"inputs": [dataset[index]["inputs"] for index in range(8)]}
        initialize_as_trained(peer, peer.data_preprocessor(batch)["inputs"])
        copy_weights(peer, ours)
        model = peer if side == "mmdet" else ours
    else:
        cfg = load_config(name)
        model = TrainedNetwork(source, name, "cpu", trust=False).model
        if side == "mmdet":
            _predict_as_mmdet(model)
    model.bbox_head.test_cfg = paper_test_cfg(threshold)
    loader = cfg.test_dataloader
    loader.update(num_workers=0, persistent_workers=False)
    return Runner(
        model=model,
        work_dir=work_dir,
        test_cfg=cfg.test_cfg,
        experiment_name=f"{side} {Path(work_dir).name}",
        default_scope="mmdet",
        log_level="ERROR",
        **(mmdet_settings(cfg) if side == "mmdet" else our_settings(cfg, backend)),
    )


def _repeat_images(cfg: Config, times: int, folder: Path) -> None:
    """Give a config a new annotation file, which lists each test image `times` times.

    Every repetition has its own ids. The file is written into the folder.
    """
    content = json.loads(Path(cfg.test_evaluator.ann_file).read_text())
    images, boxes = content["images"], content["annotations"]
    image_id_step, box_id_step = (
        1 + max((entry["id"] for entry in entries), default=0) for entries in (images, boxes)
    )
    content["images"] = [
        image | {"id": image["id"] + turn * image_id_step}
        for turn in range(times)
        for image in images
    ]
    content["annotations"] = [
        box
        | {"id": box["id"] + turn * box_id_step, "image_id": box["image_id"] + turn * image_id_step}
        for turn in range(times)
        for box in boxes
    ]
    folder.mkdir(exist_ok=True)
    ann_file = folder.resolve() / "repeated.json"
    ann_file.write_text(json.dumps(content))
    cfg.test_evaluator.ann_file = cfg.test_dataloader.dataset.ann_file = str(ann_file)


def _predict_as_mmdet(model: nn.Module) -> None:
    """Make a MixDet detector use mmdet's post-processing and mmdet's memory format."""
    model.channels_last = False
    model.to(memory_format=torch.contiguous_format)
    head = model.bbox_head
    head.predict_by_feat = BaseDenseHead.predict_by_feat.__get__(head)


def mmdet_settings(cfg: Config) -> dict:
    """Return the runner's arguments for mmdet's side, from a config of MixDet.

    The data set, the last step of the pipeline and the metric are mmdet's. The hooks are the
    runner's default hooks.
    """
    loader = cfg.test_dataloader
    loader.batch_size = 1
    if loader.dataset.type == "SafeCocoDataset":
        loader.dataset.type = "CocoDataset"
    for step in loader.dataset.pipeline:
        if step.type == "PackChannelsLast":
            step.update(PACK_DET_INPUTS)
    metric = dict(type="CocoMetric", ann_file=cfg.test_evaluator.ann_file, metric="bbox")
    return dict(test_dataloader=loader, test_evaluator=metric)


def our_settings(cfg: Config, backend: str) -> dict:
    """Return the runner's arguments for MixDet's side, without contact sheet and error analysis.

    The time to draw their images does not depend on the number of images. In a short test, it would
    be too large a share of the time.
    """
    cfg.test_evaluator.backend = backend
    cfg.default_hooks.report.sheet = cfg.default_hooks.report.errors = False
    return dict(
        test_dataloader=cfg.test_dataloader,
        test_evaluator=cfg.test_evaluator,
        default_hooks=cfg.default_hooks,
        visualizer=cfg.visualizer,
    )


def table(record: dict[str, object], markdown: bool = False) -> str:
    """Lay out the record of `measure` as text."""
    rows = [
        [
            row["detector"],
            str(row["images"]),
            f"{row['score_thr']:g}",
            row["backend"],
            *(format_range(row[side]["images_per_second"], 1) for side in ("mmdet", "mixdet")),
            format_range(row["speedup"], 2),
        ]
        for row in record["detectors"]
    ]
    header = ["detector", "images", "score_thr", "our metric", "mmdet, images/s"]
    return text_table([*header, "MixDet, images/s", "times faster"], rows, markdown)
