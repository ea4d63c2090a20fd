"""Time the two backends of the COCO metric on synthetic detections."""

from __future__ import annotations

import time
from functools import partial

import numpy as np

from benchmarks.timing import format_range, median_and_range, speedup, time_in_turns
from mixdet.evaluation.coco_scores import BACKENDS, score_boxes
from mixdet.visual.tables import text_table
from tests.synthetic import random_coco_detections


def measure_backends(rounds: int, images: int) -> dict[str, object]:
    """Time how long each backend takes to compute COCO's 12 metrics.

    Args:
        rounds: Number of timed rounds.
        images: Number of synthetic images, with 80 classes.

    Returns:
        Seconds of each backend, the speedup, and the largest difference between their metrics.
    """
    truth, detections = random_coco_detections(images)
    scores: dict[str, np.ndarray] = {}

    def score(backend: str, _turn: int) -> None:
        stats = score_boxes(truth, detections, backend=backend).stats
        scores[backend] = np.array(list(stats.values()))

    tasks = {backend: partial(score, backend) for backend in BACKENDS}
    seconds = time_in_turns(tasks, rounds, time.process_time)
    return {
        "images": images,
        "detections": len(detections),
        "largest_difference": float(np.ptp(list(scores.values()), axis=0).max()),
        "seconds": {backend: median_and_range(values) for backend, values in seconds.items()},
        "speedup": speedup(*seconds.values()),
    }


def backends_table(record: dict[str, object], markdown: bool = False) -> str:
    """Lay out the result of `measure_backends` as text."""
    row = [str(record["images"]), str(record["detections"])]
    row += [format_range(record["seconds"][backend], 1) for backend in BACKENDS]
    row += [format_range(record["speedup"], 1), f"{record['largest_difference']:.0e}"]
    header = ["images", "detections", *(f"{backend}, s" for backend in BACKENDS), "times faster"]
    return text_table([*header, "largest difference"], [row], markdown)
