"""Testing a detector, files to metric: mmdet's way against ours, in turns."""

from __future__ import annotations

import json
import os
import sys
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

from benchmarks.coco_images import PACK, coco
from benchmarks.metric import measure_metric, metric_table
from benchmarks.peers import (
    NETWORKS,
    as_trained,
    check_known,
    our_model,
    peer_model,
    share_weights,
)
from benchmarks.processes import served, take_turns
from benchmarks.timing import rates, speedup, spread
from mixdet.config.data_paths import set_data_root
from mixdet.config.read import load_config
from mixdet.config.shipped import shipped
from mixdet.evaluation.coco_scores import BACKENDS, load_backend
from mixdet.inference.trained import TrainedNetwork
from mixdet.machine import machine
from mixdet.visual.tables import text_table

SIDES = ("mmdet", "mixdet")
SIZE = 320
# the paper's post-processing: 100 boxes at IoU 0.6, and its two thresholds
THRESHOLDS = (1e-8, 1e-3)


def measure_eval(
    data_root: str,
    trained: Sequence[tuple[str, str]] = (),
    rounds: int = 3,
    images: int = 5000,
    networks: Sequence[str] = tuple(NETWORKS),
    thresholds: Sequence[float] = THRESHOLDS,
    times: int = 1,
    backends: Sequence[str] = BACKENDS[:1],
) -> dict[str, object]:
    """Time `Runner.test` both ways, and both backends of the metric.

    mmdet's side is its detector, head, data set, metric and hooks, an image at a time as in its
    configs; ours is what our configs say. Each has a process, and reads the images in it.

    Args:
        data_root: COCO's layout; its validation images are read, by detectors as
            `benchmarks.peers` has them.
        trained: Configs and checkpoints, which are tested on their own data.
        rounds: How often each is timed.
        images: Made up for the metric.
        networks: Some of `NETWORKS`.
        thresholds: Scores from which on pairs of anchor and class are candidates.
        times: The validation images of a sample stand for so many times as many, each time under
            ids of their own, so that what a run does once weighs no more than on all of COCO.
        backends: Of our metric, a row each; mmdet has pycocotools alone.

    Returns:
        machine, settings, detectors and metric.

    Raises:
        MixDetError: There are no such images, networks or backends, or a file cannot be read.
    """
    check_known("--networks", networks, NETWORKS)
    for backend in backends:
        load_backend(backend)  # refuses
    coco(data_root, "val2017", [])  # refuses
    found = machine()
    what = [(name, str(data_root)) for name in networks] + [tuple(pair) for pair in trained]
    rows = [
        row
        for one in what
        for threshold in thresholds
        for row in _detector(*one, threshold, times, rounds, backends)
    ]
    settings = {"rounds": rounds, "threads": torch.get_num_threads(), "times": times}
    return {
        "kind": "eval",
        "machine": found,
        "settings": settings,
        "detectors": rows,
        "metric": measure_metric(rounds, images),
    }


def post_processing(threshold: float) -> ConfigDict:
    """The paper's frame: class-aware NMS at 0.6, 100 boxes."""
    nms = dict(type="nms", iou_threshold=0.6)
    return ConfigDict(nms_pre=1000, nms=nms, min_bbox_size=0, score_thr=threshold, max_per_img=100)


def _detector(
    name: str, source: str, threshold: float, times: int, rounds: int, backends: Sequence[str]
) -> list[dict[str, object]]:
    threads = torch.get_num_threads()
    settings = (name, source, threshold, times, threads)
    with ExitStack() as stack:
        mmdet = stack.enter_context(served(start_testing, "mmdet", *settings, BACKENDS[0]))
        ours = {
            backend: stack.enter_context(served(start_testing, "mixdet", *settings, backend))
            for backend in backends
        }
        images = mmdet("images")
        tasks = {side: (process, "test") for side, process in {"mmdet": mmdet, **ours}.items()}
        seconds = take_turns(tasks, rounds, threads)
    return [
        {
            "detector": name if name in NETWORKS else Path(name).stem,
            "images": images,
            "score_thr": threshold,
            "backend": backend,
            "speedup": speedup(seconds["mmdet"], seconds[backend]),
            "mmdet": {"images_per_second": rates(seconds["mmdet"], images)},
            "mixdet": {"images_per_second": rates(seconds[backend], images)},
        }
        for backend in backends
    ]


def start_testing(
    side: str,
    name: str,
    source: str,
    threshold: float,
    times: int,
    threads: int,
    backend: str,
) -> Callable[[str], object]:
    """A process that tests when asked.

    Args:
        side: One of `SIDES`.
        name: One of `NETWORKS`, or the path of a config.
        source: COCO's folder, or the path of the config's checkpoint.
        threshold: Of the scores.
        times: How often COCO's images are tested.
        threads: Of torch.
        backend: Of our metric.

    Returns:
        Answers 'images', how many there are, and 'test', the metrics.
    """
    sys.stdout = Path(os.devnull).open("w")  # noqa: SIM115 - what loggers and pycocotools print
    torch.set_num_threads(threads)
    runner = test_runner(side, name, source, threshold, tempfile.mkdtemp(), times, backend)

    def answer(request: str) -> object:
        return runner.test() if request == "test" else len(runner.test_dataloader.dataset)

    return answer


def test_runner(
    side: str,
    name: str,
    source: str,
    threshold: float,
    work_dir: str,
    times: int,
    backend: str,
) -> Runner:
    """What `tools/test.py` runs; arguments as for `start_testing`, and the folder for its files."""
    if name in NETWORKS:
        cfg = load_config(str(shipped("configs") / "ssdlite_mixnet_s_coco.py"))
        set_data_root(cfg, source)
        _repeat(cfg, times, Path(work_dir))
        models = {"mmdet": peer_model(name, SIZE), "mixdet": our_model(name, SIZE)}
        dataset = DATASETS.build(cfg.test_dataloader.dataset)
        batch = {"inputs": [dataset[index]["inputs"] for index in range(8)]}
        as_trained(models["mmdet"], models["mmdet"].data_preprocessor(batch)["inputs"])
        share_weights(*models.values())
        model = models[side]
    else:
        cfg = load_config(name)
        model = TrainedNetwork(source, name, "cpu", trust=False).model
        if side == "mmdet":
            _through_mmdet(model)
    model.bbox_head.test_cfg = post_processing(threshold)
    loader = cfg.test_dataloader
    loader.update(num_workers=0, persistent_workers=False)
    return Runner(
        model=model,
        work_dir=work_dir,
        test_cfg=cfg.test_cfg,
        experiment_name=f"{side} {Path(work_dir).name}",
        default_scope="mmdet",
        log_level="ERROR",
        **(_mmdets(cfg) if side == "mmdet" else _ours(cfg, backend)),
    )


def _repeat(cfg: Config, times: int, folder: Path) -> None:
    """Have a config test its images so many times, by an annotation file made in the folder."""
    record = json.loads(Path(cfg.test_evaluator.ann_file).read_text())
    images, boxes = record["images"], record["annotations"]
    shift, step = (1 + max((one["id"] for one in every), default=0) for every in (images, boxes))
    record["images"] = [
        image | {"id": image["id"] + turn * shift} for turn in range(times) for image in images
    ]
    record["annotations"] = [
        box | {"id": box["id"] + turn * step, "image_id": box["image_id"] + turn * shift}
        for turn in range(times)
        for box in boxes
    ]
    folder.mkdir(exist_ok=True)
    ann_file = folder.resolve() / "repeated.json"
    ann_file.write_text(json.dumps(record))
    cfg.test_evaluator.ann_file = cfg.test_dataloader.dataset.ann_file = str(ann_file)


def _through_mmdet(model: nn.Module) -> None:
    """Have mmdet's code compute a detector of ours, in the memory format that it uses."""
    model.channels_last = False
    model.to(memory_format=torch.contiguous_format)
    head = model.bbox_head
    head.predict_by_feat = BaseDenseHead.predict_by_feat.__get__(head)


def _mmdets(cfg: Config) -> dict:
    """Its data set, last step, metric, and hooks: those that a runner has by itself."""
    loader = cfg.test_dataloader
    loader.batch_size = 1
    if loader.dataset.type == "SafeCocoDataset":
        loader.dataset.type = "CocoDataset"
    for step in loader.dataset.pipeline:
        if step.type == "PackChannelsLast":
            step.update(PACK)
    metric = dict(type="CocoMetric", ann_file=cfg.test_evaluator.ann_file, metric="bbox")
    return dict(test_dataloader=loader, test_evaluator=metric)


def _ours(cfg: Config, backend: str) -> dict:
    cfg.test_evaluator.backend = backend
    cfg.default_hooks.report.sheet = False  # of a few images, however many are tested
    return dict(
        test_dataloader=cfg.test_dataloader,
        test_evaluator=cfg.test_evaluator,
        default_hooks=cfg.default_hooks,
        visualizer=cfg.visualizer,
    )


def eval_table(record: dict[str, object], markdown: bool = False) -> str:
    """The record of `measure_eval` as text."""
    rows = [
        [
            row["detector"],
            str(row["images"]),
            f"{row['score_thr']:g}",
            row["backend"],
            *(spread(row[side]["images_per_second"], 1) for side in SIDES),
            spread(row["speedup"], 2),
        ]
        for row in record["detectors"]
    ]
    header = ["detector", "images", "score_thr", "our metric", "mmdet, images/s"]
    return "\n\n".join(
        [
            text_table([*header, "MixDet, images/s", "times faster"], rows, markdown),
            metric_table(record["metric"], markdown),
        ]
    )
