"""Testing a detector: mmdet's way against ours, in turns; and the COCO metric's two backends."""

from __future__ import annotations

import time
from functools import partial

import numpy as np
from pycocotools.coco import COCO

from mixdet.analysis.benchmark.peers import NETWORKS, our_model, peer_model, share_weights
from mixdet.analysis.benchmark.pictures import coco
from mixdet.analysis.benchmark.timing import alternate, rates, speedup, spread
from mixdet.analysis.machine import machine
from mixdet.analysis.tables import text_table
from mixdet.evaluation.coco_scores import BACKENDS, score_boxes

SIZE = 320
BATCH = 8
# the paper's post-processing: IoU 0.6, 100 boxes, and its two thresholds
THRESHOLDS = (1e-8, 1e-3)


def measure_eval(data_root: str, rounds: int = 3, pictures: int = 5000) -> dict[str, object]:
    """Time both ways of testing, files to boxes, and both backends of the metric.

    Args:
        data_root: COCO's layout; its validation pictures are read.
        rounds: How often each is timed.
        pictures: Made up for the metric, with 80 classes.

    Returns:
        machine, settings, detectors and metric.

    Raises:
        MixDetError: If there are no such pictures.
    """
    from mmengine.registry import init_default_scope

    import mixdet.plugin  # noqa: F401 - mmdet, prepared

    init_default_scope("mmdet")
    found = machine()
    detectors = [
        _detector(name, threshold, data_root, rounds)
        for name in NETWORKS
        for threshold in THRESHOLDS
    ]
    return {
        "kind": "eval",
        "machine": found,
        "settings": {"data_root": str(data_root), "rounds": rounds, "size": SIZE, "batch": BATCH},
        "detectors": detectors,
        "metric": _metric(rounds, pictures),
    }


def post_processing(threshold: float) -> dict:
    """The paper's frame: all candidates, class-aware NMS at 0.6, 100 boxes."""
    nms = dict(type="nms", iou_threshold=0.6)
    return dict(nms_pre=1000, nms=nms, min_bbox_size=0, score_thr=threshold, max_per_img=100)


def _detector(name: str, threshold: float, data_root: str, rounds: int) -> dict[str, object]:
    """Both ways with the same weights, on the same files.

    mmdet's reads one picture at a time, as its configs do; ours in batches of 8.
    """
    import torch
    from mmengine.runner import Runner

    peer, ours = peer_model(name, SIZE), our_model(name, SIZE)
    peer.init_weights()
    share_weights(peer, ours)
    sides = {}
    for side, model, batch in (("mmdet", peer, 1), ("mixdet", ours, BATCH)):
        model.eval().bbox_head.test_cfg.update(post_processing(threshold))
        loader = Runner.build_dataloader(_loader(data_root, batch))
        sides[side] = (model, loader)

    @torch.no_grad()
    def test(model, loader, _turn: int) -> None:
        for batch in loader:
            model.test_step(batch)

    seconds = alternate(
        {side: partial(test, *parts) for side, parts in sides.items()}, rounds, time.perf_counter
    )
    images = len(sides["mixdet"][1].dataset)
    result: dict[str, object] = {
        "network": name,
        "score_thr": threshold,
        "speedup": speedup(*seconds.values()),
    }
    for side, found in seconds.items():
        result[side] = {"images_per_second": rates(found, images)}
    return result


def _loader(data_root: str, batch_size: int) -> dict:
    keys = ("img_id", "img_path", "ori_shape", "img_shape", "scale_factor")
    pipeline = [
        dict(type="LoadImageFromFile"),
        dict(type="Resize", scale=(SIZE, SIZE), keep_ratio=False),
        dict(type="PackDetInputs", meta_keys=keys),
    ]
    return dict(
        batch_size=batch_size,
        num_workers=0,
        sampler=dict(type="DefaultSampler", shuffle=False),
        dataset=coco(data_root, "val2017", pipeline, test_mode=True),
    )


def many_pictures(images: int, classes: int, seed: int = 0) -> tuple[COCO, list[dict]]:
    """Made-up truth and detections: objects found a little off, and some false ones.

    Args:
        images: How many pictures, of 640 x 480 pixels.
        classes: How many categories.
        seed: Of the random numbers.

    Returns:
        The truth, and the detections as COCO results.
    """
    rng = np.random.default_rng(seed)
    annotations, detections = [], []
    for image in range(images):
        for _ in range(rng.integers(0, 15)):
            size = np.exp(rng.uniform(2, 5.5, 2))
            box = np.concatenate([rng.random(2) * [560, 400], size])
            category = int(rng.integers(classes))
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image,
                    "category_id": category,
                    "bbox": box.tolist(),
                    "area": float(size.prod()),
                    "iscrowd": int(rng.random() < 0.01),
                }
            )
            for _ in range(rng.integers(1, 4)):
                moved = box + rng.normal(0, 0.1, 4) * np.tile(size, 2)
                moved[2:] = np.maximum(moved[2:], 1)
                detections.append(_result(image, category, moved, rng.random()))
        for _ in range(rng.integers(0, 20)):
            box = np.concatenate([rng.random(2) * 400, 5 + rng.random(2) * 200])
            detections.append(_result(image, int(rng.integers(classes)), box, rng.random() / 2))
    truth = COCO()
    truth.dataset = {
        "images": [{"id": image, "width": 640, "height": 480} for image in range(images)],
        "annotations": annotations,
        "categories": [{"id": number, "name": f"class {number}"} for number in range(classes)],
    }
    truth.createIndex()
    return truth, detections


def _result(image: int, category: int, box: np.ndarray, score: float) -> dict:
    return {"image_id": image, "category_id": category, "bbox": box.tolist(), "score": score}


def _metric(rounds: int, pictures: int) -> dict[str, object]:
    """The 12 numbers by both backends, and their time."""
    truth, detections = many_pictures(pictures, 80)
    scores: dict[str, np.ndarray] = {}

    def score(backend: str, _turn: int) -> None:
        stats = score_boxes(truth, detections, backend=backend).stats
        scores[backend] = np.array(list(stats.values()))

    seconds = alternate({backend: partial(score, backend) for backend in BACKENDS}, rounds)
    return {
        "pictures": pictures,
        "detections": len(detections),
        "largest_difference": float(np.ptp(list(scores.values()), axis=0).max()),
        "seconds": {name: rates(found, 1) for name, found in seconds.items()},
        "speedup": speedup(*seconds.values()),
    }


def eval_table(record: dict[str, object], markdown: bool = False) -> str:
    """The record of `measure_eval` as text."""
    rows = [
        [
            row["network"],
            f"{row['score_thr']:g}",
            *(spread(row[side]["images_per_second"], 1) for side in ("mmdet", "mixdet")),
            spread(row["speedup"], 2),
        ]
        for row in record["detectors"]
    ]
    header = ["network", "score_thr", "mmdet, images/s", "MixDet, images/s", "times faster"]
    metric = record["metric"]
    seconds = [f"{metric['seconds'][name]['median']:.1f}" for name in BACKENDS]
    line = [str(metric["pictures"]), str(metric["detections"]), *seconds]
    line += [spread(metric["speedup"], 1), f"{metric['largest_difference']:.0e}"]
    head = ["pictures", "detections", *(f"{name}, s" for name in BACKENDS)]
    return "\n\n".join(
        [
            text_table(header, rows, markdown),
            text_table([*head, "times faster", "largest difference of the 12"], [line], markdown),
        ]
    )
