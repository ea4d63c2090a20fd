"""`metric`: time the backends of the COCO metric on synthetic detections."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack

import numpy as np
import torch

from benchmarks.processes import process_memory, remote_function, reset_peak_memory
from benchmarks.timing import format_range, median_and_range, turn_order
from mixdet.evaluation.coco_scores import pause_garbage_collection, score_boxes
from mixdet.evaluation.detection_arrays import DetectionArrays
from mixdet.evaluation.evaluators import BACKENDS
from mixdet.machine import machine_record
from mixdet.visual.tables import text_table
from tests.synthetic import random_coco_detections

REFERENCE = BACKENDS[0]


def measure(
    rounds: int = 5, images: int = 5000, boxes: Sequence[int] = (0, 100)
) -> dict[str, object]:
    """Time how long each backend takes from the stored detections to the scores.

    The metric stores the boxes, scores and labels of each image as tensors, and the annotations as
    `load_coco` returns them. The time includes all that follows: joining the tensors, indexing the
    true boxes, COCO's 12 numbers, and the AP and the AP50 of every class. Each backend runs in its
    own process.

    Args:
        rounds: Number of timed rounds.
        images: Number of synthetic images, with 80 classes.
        boxes: Fill up the detections of each image to this number, for each row. 0 fills up none:
            the mean is 24 detections per image.

    Returns:
        machine, settings and rows. A row has, for each backend, the CPU seconds, the peak memory in
        MB beyond the memory before the evaluation, how many times faster than pycocotools the
        backend is (the ratio of the shortest times), and the largest difference of its scores.
    """
    measured_on = machine_record()
    rows = [_measure_row(rounds, images, filled) for filled in boxes]
    return {
        "kind": "metric",
        "machine": measured_on,
        "settings": {"rounds": rounds},
        "rows": rows,
    }


def _measure_row(rounds: int, images: int, filled: int) -> dict[str, object]:
    seconds: dict[str, list[float]] = {backend: [] for backend in BACKENDS}
    memory = dict.fromkeys(BACKENDS, 0.0)
    scores: dict[str, list[float]] = {}
    with ExitStack() as stack:
        functions = {
            backend: stack.enter_context(remote_function(_start_backend, backend, images, filled))
            for backend in BACKENDS
        }
        for turn, backend in turn_order(functions, rounds):
            scores[backend], peak, detections = functions[backend](None)
            memory[backend] = max(memory[backend], peak)
            if turn:
                seconds[backend].append(functions[backend].cpu)
    return {
        "images": images,
        "detections": detections,
        "backends": {
            backend: {
                "seconds": median_and_range(seconds[backend]),
                "peak_mb": memory[backend],
                "times_faster": min(seconds[REFERENCE]) / min(seconds[backend]),
                "largest_difference": _largest_difference(scores[backend], scores[REFERENCE]),
            }
            for backend in BACKENDS
        },
    }


def _largest_difference(scores: list[float], reference: list[float]) -> float:
    """Compare scores. Classes without objects have the score NaN on both sides."""
    a, b = np.array(scores), np.array(reference)
    return float(np.where(np.isnan(a) & np.isnan(b), 0, np.abs(a - b)).max())


def _start_backend(
    backend: str, images: int, filled: int
) -> Callable[[None], tuple[list[float], float, int]]:
    """Return a function that evaluates, and returns the scores, the peak and the detections."""
    truth, results = random_coco_detections(images, per_image=filled)
    found = DetectionArrays.from_results(results)
    category_ids = list(truth.cats)
    label_of = {category: label for label, category in enumerate(category_ids)}
    labels = torch.tensor([label_of[category] for category in found.category_ids])
    corners = torch.from_numpy(found.boxes).clone()
    corners[:, 2:] += corners[:, :2]
    scores = torch.from_numpy(found.scores)
    counts = torch.bincount(torch.tensor(found.image_ids), minlength=images).tolist()
    columns = (column.split(counts) for column in (corners, scores, labels))
    stored = list(zip(range(images), *columns, strict=True))  # the detections are by image
    del results, found

    @pause_garbage_collection()  # as in the metric
    def evaluate(_: None) -> tuple[list[float], float, int]:
        reset_peak_memory()
        before = process_memory("VmRSS")
        detections = DetectionArrays.from_images(stored, category_ids)
        result = score_boxes(truth, detections, category_ids, backend=backend)
        peak = process_memory("VmHWM") - before
        tables = result.stats, result.per_class, result.per_class_50
        return [value for table in tables for value in table.values()], peak, len(detections)

    return evaluate


def table(record: dict[str, object], markdown: bool = False) -> str:
    """Lay out the record of `measure` as text."""
    rows = [
        [
            str(row["images"]),
            str(row["detections"]),
            backend,
            format_range(values["seconds"], 2),
            f"{values['times_faster']:.1f}",
            f"{values['peak_mb']:.0f}",
            f"{values['largest_difference']:.1g}",
        ]
        for row in record["rows"]
        for backend, values in row["backends"].items()
    ]
    header = ["images", "detections", "backend", "seconds", "times faster", "peak MB"]
    return text_table([*header, "largest difference"], rows, markdown)
