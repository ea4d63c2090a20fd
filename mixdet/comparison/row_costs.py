"""Measurements of a comparison that are taken once per row (config), not once per seed.

They are the parameters, the multiply-adds, the latency, and a confidence interval of the difference
in mAP to the baseline. The interval is computed by a bootstrap over validation images.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from mixdet.analysis.complexity import count_complexity
from mixdet.comparison.comparison_folder import Comparison, RowRecord
from mixdet.comparison.run_record import describe_environment
from mixdet.comparison.score_intervals import ImageAP, Interval, bootstrap_images
from mixdet.evaluation import ScoredData
from mixdet.images import as_rgb
from mixdet.inference import Detector

WARMUP_ROUNDS, TIMED_ROUNDS = 2, 30


def measure_rows(
    comparison: Comparison, images: Sequence[str | os.PathLike], scored: ScoredData
) -> None:
    """Measure every row of a comparison, and write the measurements to `rows.json`.

    Args:
        comparison: A comparison in which each row has a finished run. Its `rows` are changed in
            place.
        images: Images that the latency is measured with.
        scored: The annotations, classes and images of the validation set.
    """
    plan = comparison.plan
    # Reading a config also imports the modules that its checkpoint needs.
    complexities = [count_complexity(config, plan.cfg_options) for config in plan.configs]
    checkpoints = [_last_checkpoint(comparison, row) for row in plan.rows]
    latencies = _measure_latencies(checkpoints, images)
    environment = describe_environment()
    hardware = f"{environment['device']}, batch 1"
    if not torch.cuda.is_available():
        hardware += f", {environment['threads']} threads"
    intervals = _intervals_over_images(comparison, scored)
    for row, complexity, latency in zip(plan.rows, complexities, latencies, strict=True):
        comparison.rows[row] = RowRecord(
            params=complexity.params,
            madds=complexity.madds,
            input_hw=complexity.input_hw,
            latency_ms=latency,
            latency_of=hardware,
            images_interval=tuple(intervals[row]) if row in intervals else None,
        )
    comparison.write()


def _last_checkpoint(comparison: Comparison, row: str) -> Path:
    """Return the last checkpoint of a row's run with the first seed."""
    folder = comparison.run_folder(row, min(comparison.runs_of(row)))
    return folder / Path((folder / "last_checkpoint").read_text().strip()).name


def _measure_latencies(
    checkpoints: Sequence[Path], images: Sequence[str | os.PathLike]
) -> list[tuple[float, float, float]]:
    """Time the detectors in turns. Return each detector's quartiles of milliseconds per image."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    detectors = [Detector(path, device=device) for path in checkpoints]
    arrays = [as_rgb(path) for path in images]
    times: list[list[float]] = [[] for _ in detectors]
    for index in range(-WARMUP_ROUNDS, TIMED_ROUNDS):
        image = arrays[index % len(arrays)]
        for detector, milliseconds in zip(detectors, times, strict=True):
            start = time.perf_counter()
            detector(image)  # The results are NumPy arrays, so the GPU has finished.
            if index >= 0:
                milliseconds.append(1000 * (time.perf_counter() - start))
    return [tuple(np.percentile(milliseconds, (25, 50, 75)).tolist()) for milliseconds in times]


def _intervals_over_images(comparison: Comparison, scored: ScoredData) -> dict[str, Interval]:
    scorers = {}
    for row in comparison.plan.rows:
        files = [
            comparison.run_folder(row, seed) / "val_detections.json"
            for seed in comparison.runs_of(row)
        ]
        scorers[row] = [
            ImageAP(
                scored.annotations,
                json.loads(file.read_text()),
                scored.image_ids,
                scored.category_ids,
            )
            for file in files
        ]
    return bootstrap_images(scorers, len(scored.image_ids))
