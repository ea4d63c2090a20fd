"""What a row costs, and how its score hangs on the images: all that needs no training."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import torch

from mixdet.analysis.complexity import complexity
from mixdet.comparison.folder import Comparison, RowRecord
from mixdet.comparison.runs import describe_environment
from mixdet.comparison.statistics import ImageAP, bootstrap_images
from mixdet.evaluation import load_coco
from mixdet.inference import Detector

ROUNDS = 30


def measure(comparison: Comparison, images: Sequence[Path], ann_file: str) -> None:
    """Fill in `comparison.rows`: parameters, multiply-adds, latency, bootstrap over images.

    Args:
        comparison: All of whose runs are done; changed in place.
        images: Images to time on.
        ann_file: COCO annotation file of the validation set.
    """
    plan = comparison.plan
    checkpoints = [_checkpoint(comparison, row) for row in plan.rows]
    latencies = _latencies(checkpoints, images)
    environment = describe_environment()
    where = f"{environment['device']}, batch 1"
    if not torch.cuda.is_available():
        where += f", {environment['threads']} threads"
    intervals = _over_images(comparison, ann_file)
    for row, config, latency in zip(plan.rows, plan.configs, latencies, strict=True):
        cost = complexity(config, plan.cfg_options)
        comparison.rows[row] = RowRecord(
            params=cost.params,
            madds=cost.madds,
            input_size=cost.input_size,
            latency_ms=latency,
            latency_of=where,
            images_interval=intervals.get(row),
        )
    comparison.write()


def _checkpoint(comparison: Comparison, row: str) -> Path:
    """The last checkpoint of the row's first seed."""
    folder = comparison.run_folder(row, min(comparison.runs_of(row)))
    return folder / Path((folder / "last_checkpoint").read_text().strip()).name


def _latencies(
    checkpoints: Sequence[Path], images: Sequence[Path]
) -> list[tuple[float, float, float]]:
    """Quartiles of milliseconds for one image, the rows taking turns."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    detectors = [Detector(path, device=device) for path in checkpoints]
    arrays = [cv2.imread(str(path))[..., ::-1] for path in images]
    times: list[list[float]] = [[] for _ in detectors]
    for index in range(-2, ROUNDS):  # two rounds to warm up
        image = arrays[index % len(arrays)]
        for detector, found in zip(detectors, times, strict=True):
            start = time.perf_counter()
            detector(image)  # ends in NumPy arrays: a GPU has finished
            if index >= 0:
                found.append(1000 * (time.perf_counter() - start))
    return [tuple(np.percentile(found, (25, 50, 75)).tolist()) for found in times]


def _over_images(comparison: Comparison, ann_file: str) -> dict[str, tuple]:
    truth = load_coco(ann_file)
    images = sorted(truth.imgs)
    scorers = {}
    for row in comparison.plan.rows:
        files = [
            comparison.run_folder(row, seed) / "val_detections.json"
            for seed in comparison.runs_of(row)
        ]
        scorers[row] = [ImageAP(truth, json.loads(file.read_text()), images) for file in files]
    return {row: tuple(found) for row, found in bootstrap_images(scorers, len(images)).items()}
